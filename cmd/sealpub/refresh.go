package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/publish"
)

func newRefresh() *cobra.Command {
	var dir string
	var files []string
	var pass secret
	cmd := &cobra.Command{
		Use:   "refresh",
		Short: "re-sign snapshot and timestamp, where no sealsrv does it",
		Long: `Signs snapshot and timestamp anew if something new was published, or if they have
lived half their life: a week, of two, for the snapshot; three days and a half, of
seven, for the timestamp. Devices refuse a catalog whose timestamp is over, so
where no sealsrv runs, run this every day, and then copy repo/ to the web server.

  sealpub refresh --dir vendor

It uses the keys in keys/online; --key names others.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s := cli.For(cmd)
			v, err := publish.Open(dir)
			if err != nil {
				return err
			}
			open, done := opener(cmd, &pass, true)
			defer done()
			st, err := v.Refresh(files, open)
			if err != nil {
				return err
			}
			if s.JSON {
				return s.Document("sealant.refresh/1", struct {
					Changed   bool      `json:"changed"`
					Snapshot  int64     `json:"snapshot"`
					Timestamp int64     `json:"timestamp"`
					Expires   time.Time `json:"expires"`
				}{st.Changed, st.Snapshot, st.Timestamp, st.Expires.UTC()})
			}
			word := "is fresh"
			if st.Changed {
				word = "was signed anew"
			}
			s.Printf("%s the catalog %s: snapshot %d, timestamp %d, good until %s\n", s.Good(), word, st.Snapshot, st.Timestamp,
				st.Expires.UTC().Format("2006-01-02 15:04 UTC"))
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", ".", "the vendor folder")
	cmd.Flags().StringArrayVar(&files, "key", nil, "another key file of snapshot or timestamp; can be repeated")
	pass.flags(cmd)
	return cmd
}
