package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/server/catalog"
)

func newMirror() *cobra.Command {
	cmd := &cobra.Command{
		Use: "mirror", Short: "carry the catalog to where no network reaches",
		Long: `The catalog is signed files: any web server, CDN or stick can serve them, and devices
verify them wherever they come from. Export writes what is in force into a folder,
on a stick for example; import takes it over into the catalog's folder of a server
that has no network. Recalls travel with it. Both verify everything from the pinned
root, copy only what is missing, and never go back to an older catalog.`,
	}
	cmd.AddCommand(newMirrorWay("export", "write the catalog in force into a folder",
		`Export copies the catalog that this server shows into FOLDER, which any web server
can serve as /tuf/, and which mirror import reads. Repeating it copies what is new.`, true))
	cmd.AddCommand(newMirrorWay("import", "take over the catalog from a folder",
		`Import copies the catalog in FOLDER into this server's. The server shows it from the
moment on when the last file stands. An older catalog than the present one, an expired
one, and files that are not what was signed are refused, and the present one stays.`, false))
	return cmd
}

func newMirrorWay(use, short, long string, out bool) *cobra.Command {
	return &cobra.Command{
		Use: use + " FOLDER", Short: short, Long: long, Args: cobra.ExactArgs(1),
		Example: "  sealsrv mirror " + use + " /media/stick/catalog",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := configOf(cmd)
			if err != nil {
				return err
			}
			root, err := readSmall(c.Root)
			if err != nil {
				return fmt.Errorf("cannot read the pinned root: %w", err)
			}
			from, to := c.Repository, args[0]
			if !out {
				from, to = to, from
			}
			m, err := catalog.Mirror(cmd.Context(), from, to, root, time.Now)
			if err != nil {
				return err
			}
			s := cli.For(cmd)
			if s.JSON {
				return s.Document("sealant.mirrored/1", map[string]any{
					"folder": to, "version": m.Version, "expires": m.Expires.UTC(), "files": m.Targets, "copied": m.Copied, "bytes": m.Bytes,
				})
			}
			s.Notef("%s catalog v%d in %s: %d files copied (%s), expires %s\n", s.Good(), m.Version, to, m.Copied, cli.Bytes(m.Bytes), stamp(s, m.Expires))
			return nil
		},
	}
}
