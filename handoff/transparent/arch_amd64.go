package transparent

// auditArch is AUDIT_ARCH_X86_64 (linux/audit.h).
const auditArch = 0xC000003E

// unlinkCalls are unlink(2) and unlinkat(2).
var unlinkCalls = []uint32{sysUnlink, 263}

const sysUnlink = 87
