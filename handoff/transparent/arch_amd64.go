package transparent

// auditArch is AUDIT_ARCH_X86_64 (linux/audit.h).
const auditArch = 0xC000003E

// sysUnlink is unlink(2).
const sysUnlink = 87
