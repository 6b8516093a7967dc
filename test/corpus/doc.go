// Package corpus holds the bytes of patches of real security updates against
// growth (tag slow), and compares them with the peers (bench).
package corpus
