//go:build !slow

package e2e

// stride is how many steps TestKill passes over between two kills.
const stride = 6
