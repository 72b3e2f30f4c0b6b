package transparent

// auditArch is AUDIT_ARCH_AARCH64 (linux/audit.h).
const auditArch = 0xC00000B7
