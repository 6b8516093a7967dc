// Package packaging tests what people install: the packages, in clean roots of
// Debian and of rpm; the initrds that their hooks make, booted; and the worked
// example (examples/mkosi), from its tree to a fixed, restarted and restored
// device.
package packaging
