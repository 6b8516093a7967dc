// Package verity runs, in a virtual machine whose kernel has the device mapper,
// what the host's kernel can't show: that dm-verity guards what is attached,
// that nothing of it leaks, and that a device survives power cuts at any
// moment (build tag slow).
package verity
