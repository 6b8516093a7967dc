package main

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/image"
	"github.com/sealant-os/sealant/image/erofs"
	"github.com/sealant-os/sealant/image/trustcache"
	"github.com/sealant-os/sealant/internal/cli"
)

// imageDocument is the document of image inspect.
type imageDocument struct {
	imageSummary
	DataSize       int64       `json:"data_size"`
	HashTreeSize   int64       `json:"hash_tree_size"` // with its superblock
	TrustCacheSize int64       `json:"trust_cache_size"`
	Directories    int         `json:"directories"`
	Symlinks       int         `json:"symlinks"`
	Entries        []imageFile `json:"entries,omitempty"`
}

// imageFile is one path of an image.
type imageFile struct {
	Path     string            `json:"path"`
	Type     string            `json:"type"` // file, directory or symlink
	Mode     string            `json:"mode"` // octal
	UID      uint32            `json:"uid"`
	GID      uint32            `json:"gid"`
	Size     int64             `json:"size"`
	Modified *time.Time        `json:"modified,omitempty"`
	Links    uint32            `json:"links"`
	Target   string            `json:"target,omitempty"`
	Xattrs   map[string]string `json:"xattrs,omitempty"`   // name → hex
	Kind     string            `json:"kind,omitempty"`     // how it may execute
	FSVerity string            `json:"fsverity,omitempty"` // its digest, SHA-256
}

func newImageInspect() *cobra.Command {
	var files bool
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "show what an image is and holds",
		Long: `Shows sizes, seal, digest and counts of an image, and with --files everything in
it. It shows what the image says about itself; sealpub image verify proves it.

  sealpub image inspect web.cryptex --files`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			s := cli.For(cmd)
			f, err := openSource(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			c, err := image.Open(f, f.Size())
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			doc, err := inspect(c, args[0])
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			if s.JSON {
				if !files {
					doc.Entries = nil
				}
				return s.Document("sealant.image/1", doc)
			}
			printSummary(s, doc.imageSummary)
			s.Printf("  data    %s EROFS: %d files, %d directories, %d symbolic links\n", cli.Bytes(doc.DataSize), doc.Files, doc.Directories, doc.Symlinks)
			s.Printf("  verity  %s, %d data blocks, salt %s\n", cli.Bytes(doc.HashTreeSize), doc.Seal.DataBlocks, doc.Seal.Salt)
			s.Printf("  trust   %s, %d entries, %s\n", cli.Bytes(doc.TrustCacheSize), doc.Executables, s.Short(doc.TrustCache.String()))
			if files {
				for _, e := range doc.Entries {
					s.Printf("%s\n", e.line(s))
				}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&files, "files", false, "list everything in the image")
	return cmd
}

// inspect reads everything that an image says about itself.
func inspect(c *image.Cryptex, file string) (imageDocument, error) {
	digest, err := c.Digest()
	if err != nil {
		return imageDocument{}, err
	}
	cache, err := c.TrustCache()
	if err != nil {
		return imageDocument{}, err
	}
	tree, err := c.Tree()
	if err != nil {
		return imageDocument{}, err
	}
	doc := imageDocument{DataSize: c.DataSize, HashTreeSize: c.TrustCacheOffset() - c.DataSize, TrustCacheSize: c.TrustCacheSize}
	regular := 0
	err = tree.Walk(func(path string, n *erofs.Inode) error {
		e, err := describe(tree, cache, path, n)
		switch e.Type {
		case "directory":
			doc.Directories++
		case "symlink":
			doc.Symlinks++
		default:
			regular++
		}
		doc.Entries = append(doc.Entries, e)
		return err
	})
	doc.imageSummary = summarize(file, image.Summary{
		Name: c.Name, Subtype: c.Subtype, Size: c.Size, DataSize: c.DataSize, Digest: digest, Seal: c.Seal,
		TrustCache: c.TrustCacheDigest, Files: regular, Executables: len(cache.Entries),
	})
	return doc, err
}

func describe(tree *erofs.Image, cache *trustcache.Cache, path string, n *erofs.Inode) (e imageFile, err error) {
	e = imageFile{Path: "/" + path, Type: "file", Mode: fmt.Sprintf("%04o", n.Mode&0o7777), UID: n.UID, GID: n.GID, Size: n.Size, Links: n.Links}
	switch {
	case n.IsDir():
		e.Type = "directory"
	case n.IsSymlink():
		e.Type = "symlink"
		if e.Target, err = tree.Target(n); err != nil {
			return e, err
		}
	default:
		at := time.Unix(n.Mtime, 0).UTC()
		e.Modified = &at
	}
	if t, ok := cache.Find(path); ok {
		e.Kind, e.FSVerity = t.Kind.String(), hex.EncodeToString(t.Digest[:])
	}
	xattrs, err := tree.Xattrs(n)
	for _, x := range xattrs {
		if e.Xattrs == nil {
			e.Xattrs = map[string]string{}
		}
		e.Xattrs[x.Name] = hex.EncodeToString(x.Value)
	}
	return e, err
}

// line is one line of the list: "-rwxr-xr-x 0:0  14 kB  /usr/bin/true".
func (e imageFile) line(s *cli.Screen) string {
	kinds := map[string]string{"file": "-", "directory": "d", "symlink": "l"}
	text := fmt.Sprintf("%s%s %5d:%-5d %10d  %s", kinds[e.Type], e.Mode, e.UID, e.GID, e.Size, e.Path)
	if e.Target != "" {
		text += " " + s.Arrow() + " " + e.Target
	}
	if e.Kind != "" {
		text += "  [" + e.Kind + "]"
	}
	return text
}
