// Package split moves what can be patched out of an operating system tree and
// into cryptexes.
//
// A rule says what belongs to a cryptex: patterns of paths, or Debian packages
// that are installed in the tree. Split writes one image for each cryptex and
// leaves a symbolic link for each file, from its path to
// /usr/lib/cryptexes/NAME/PATH, where the device will mount the image. So the
// tree works as before once the images are mounted, and exchanging a cryptex is
// one mount.
//
// It is all or nothing: everything is planned and every image is written
// before the tree is touched; files are moved aside, not deleted, until the
// end; and a run that was killed is undone by the next one.
package split

import (
	"path"
	"strings"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/internal/fault"
)

// Mounts is the directory, in the tree and on the device, below which every
// cryptex has its mount point.
const Mounts = "usr/lib/cryptexes"

// Rule says what belongs to one cryptex. Several rules may name the same one.
type Rule struct {
	Name string // of the cryptex

	// Patterns are paths from the tree's root. In a component, * ? [a-z] and \
	// mean what they mean to path.Match; the component ** stands for any number
	// of directories, or at the end for every file below. A pattern that names a
	// directory moves it whole and leaves one link.
	Patterns []string

	// Packages are Debian packages, NAME or NAME:ARCH. Their files below /usr
	// and /opt move, but for documentation; directories stay, since other
	// packages may share them, and so do the files in /etc and /var.
	Packages []string
}

// packagesPrefix begins a rule that names packages.
const packagesPrefix = "packages:"

// ParseRule reads NAME=PATTERN[,PATTERN…] or NAME=packages:DEB[,DEB…].
func ParseRule(text string) (Rule, error) {
	name, what, found := strings.Cut(text, "=")
	if !found || what == "" {
		return Rule{}, fault.New(fault.Usage, "cannot read the rule %q: it is NAME=PATTERN[,PATTERN…] or NAME=packages:DEB[,DEB…]", text)
	}
	if err := image.CheckName(name); err != nil {
		return Rule{}, err
	}
	r := Rule{Name: name}
	if list, ok := strings.CutPrefix(what, packagesPrefix); ok {
		r.Packages = strings.Split(list, ",")
	} else {
		r.Patterns = strings.Split(what, ",")
	}
	return r, r.check()
}

func (r Rule) check() error {
	if err := image.CheckName(r.Name); err != nil {
		return err
	}
	if len(r.Patterns)+len(r.Packages) == 0 {
		return fault.New(fault.Usage, "cannot split out cryptex %s: no pattern and no package", r.Name)
	}
	for _, p := range r.Patterns {
		if _, err := components(p); err != nil {
			return err
		}
	}
	for _, p := range r.Packages {
		if !isPackage(p) {
			return fault.New(fault.Usage, "cannot split out package %q: not the name of a Debian package", p)
		}
	}
	return nil
}

// components takes a pattern apart.
func components(pattern string) ([]string, error) {
	parts := strings.Split(strings.Trim(pattern, "/"), "/")
	for _, part := range parts {
		if _, err := path.Match(part, ""); err != nil || part == "" || part == "." || part == ".." {
			return nil, fault.New(fault.Usage, "cannot use the pattern %q: not a path with wildcards", pattern)
		}
	}
	return parts, nil
}

// isPackage tells whether a word can name a package, perhaps with its
// architecture: Debian Policy 5.6.7.
func isPackage(name string) bool {
	name, arch, hasArch := strings.Cut(name, ":")
	if len(name) < 2 || hasArch && arch == "" {
		return false
	}
	for i, c := range []byte(name + arch) {
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (i == 0 || c != '+' && c != '-' && c != '.') {
			return false
		}
	}
	return true
}
