package main

import (
	"context"
	"errors"

	"github.com/spf13/cobra"

	"github.com/sealant-os/sealant/internal/cli"
	"github.com/sealant-os/sealant/internal/fault"
	"github.com/sealant-os/sealant/server/store"
)

func newBackup() *cobra.Command {
	return &cobra.Command{
		Use: "backup FILE", Short: "copy the database while the server runs", Args: cobra.ExactArgs(1),
		Long: `Backup writes one consistent copy of the SQLite database to FILE, which must not
exist, and checks it. The server goes on meanwhile. To restore: stop the server, put
the file in the database's place (and remove FILE-wal and FILE-shm beside the old
one), start it. What a restored database has forgotten costs enrolments and history,
not safety: recalls and stops stand in the catalog too. But let no server of the same
public log run on an older copy: devices take a log that lost records for a lie.

PostgreSQL has its own tool: pg_dump --format=custom. The catalog's folder is files
that never change; sealsrv mirror export copies what is in force.`,
		Example: "  sealsrv backup /var/backups/fleet-2026-11-23.db",
		RunE: func(cmd *cobra.Command, args []string) error {
			return atStore(cmd, func(ctx context.Context, db *store.DB) error {
				size, err := db.Backup(ctx, args[0])
				if errors.Is(err, store.ErrPostgres) {
					return fault.New(fault.Usage, "cannot copy the database: %w", err).Hint("pg_dump --format=custom --file=%s DATABASE", args[0])
				} else if err != nil {
					return err
				}
				s := cli.For(cmd)
				if s.JSON {
					return s.Document("sealant.backup/1", map[string]any{"file": args[0], "bytes": size})
				}
				s.Notef("%s %s (%s), whole\n", s.Good(), args[0], cli.Bytes(size))
				return nil
			})
		},
	}
}
