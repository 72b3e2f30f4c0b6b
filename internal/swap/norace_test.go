//go:build !race

package swap

// raceBuild says that everything takes ten times as long: what many cases are looked at for is done without it, see integration/explore.sh.
const raceBuild = false
