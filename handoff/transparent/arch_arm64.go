package transparent

// auditArch is AUDIT_ARCH_AARCH64 (linux/audit.h).
const auditArch = 0xC00000B7

// sysUnlink: there is only unlinkat(2).
const sysUnlink = -1
