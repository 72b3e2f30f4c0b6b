//go:build !amd64 && !arm64

package transparent

// auditArch 0: not supported here.
const auditArch = 0

const sysUnlink = -1
