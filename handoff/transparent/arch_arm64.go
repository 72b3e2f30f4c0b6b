package transparent

// auditArch is AUDIT_ARCH_AARCH64 (linux/audit.h).
const auditArch = 0xC00000B7

// unlinkCalls is unlinkat(2); there is no unlink(2).
var unlinkCalls = []uint32{35}

const sysUnlink = -1
