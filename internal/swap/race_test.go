//go:build race

package swap

const raceBuild = true
