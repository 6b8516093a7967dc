package store

import (
	"context"
	"database/sql"
	"time"
)

// reportIDLife is how long the random name of a report is remembered.
const reportIDLife = 48 * time.Hour

// Cell is one count of daily reports. Its key holds nothing about a device.
type Cell struct {
	Release string
	OSBuild string
	Arch    string
	Arm     string // offered, control
	Day     string // UTC, "2026-11-23"
	App     string
	AtRisk  int64 // reports in which the app ran that day and had not crashed before
	Crashed int64 // reports with its first crash
}

// Recommendation counts what people did with a recommendation to remove.
type Recommendation struct {
	Release string
	App     string
	Outcome string // shown, accepted, dismissed
	Count   int64
}

// Counts are the counts of one report; they are added to what is there.
type Counts struct {
	Cells           []Cell
	Recommendations []Recommendation
	Spent           *Spent // the token that it spends; nil where none is needed
}

// AddCounts adds one report. id is the report's random name, nil if it has
// none; a name that was counted in the last two days is not counted again
// (fresh is false then). A fresh one spends its token; ErrSpent if that was spent
// already, and then nothing is counted.
func (db *DB) AddCounts(ctx context.Context, id []byte, c Counts, now time.Time) (fresh bool, err error) {
	err = db.change(ctx, func(tx *sql.Tx) error {
		if id != nil {
			if _, err := tx.ExecContext(ctx, "DELETE FROM report_ids WHERE at < $1", micros(now.Add(-reportIDLife))); err != nil {
				return err
			}
			res, err := tx.ExecContext(ctx, "INSERT INTO report_ids (id, at) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING", id, micros(now))
			if err != nil {
				return err
			}
			if n, err := res.RowsAffected(); err != nil || n == 0 {
				return err
			}
		}
		if c.Spent != nil {
			if err := spend(ctx, tx, c.Spent); err != nil {
				return err
			}
		}
		fresh = true
		for _, cell := range c.Cells {
			_, err := tx.ExecContext(ctx, `INSERT INTO daily (release, os_build, arch, arm, day, app, at_risk, crashed)
				VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT (release, os_build, arch, arm, day, app)
				DO UPDATE SET at_risk = daily.at_risk + excluded.at_risk, crashed = daily.crashed + excluded.crashed`,
				cell.Release, cell.OSBuild, cell.Arch, cell.Arm, cell.Day, cell.App, cell.AtRisk, cell.Crashed)
			if err != nil {
				return err
			}
		}
		for _, r := range c.Recommendations {
			_, err := tx.ExecContext(ctx, `INSERT INTO recommendations (release, app, outcome, count) VALUES ($1, $2, $3, $4)
				ON CONFLICT (release, app, outcome) DO UPDATE SET count = recommendations.count + excluded.count`,
				r.Release, r.App, r.Outcome, r.Count)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return fresh && err == nil, err
}

// Cells lists the daily counts of a release ("" for all), ordered by their keys.
func (db *DB) Cells(ctx context.Context, release string) ([]Cell, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT release, os_build, arch, arm, day, app, at_risk, crashed FROM daily
		WHERE $1 = '' OR release = $1 ORDER BY release, app, day, os_build, arch, arm`, release)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Cell
	for rows.Next() {
		var c Cell
		if err := rows.Scan(&c.Release, &c.OSBuild, &c.Arch, &c.Arm, &c.Day, &c.App, &c.AtRisk, &c.Crashed); err != nil {
			return nil, err
		}
		list = append(list, c)
	}
	return list, rows.Err()
}

// Recommendations lists what people did with recommendations about a release
// ("" for all).
func (db *DB) Recommendations(ctx context.Context, release string) ([]Recommendation, error) {
	rows, err := db.read.QueryContext(ctx, `SELECT release, app, outcome, count FROM recommendations
		WHERE $1 = '' OR release = $1 ORDER BY release, app, outcome`, release)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var list []Recommendation
	for rows.Next() {
		var r Recommendation
		if err := rows.Scan(&r.Release, &r.App, &r.Outcome, &r.Count); err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	return list, rows.Err()
}

// CountCells counts the cells of a release and day.
func (db *DB) CountCells(ctx context.Context, release, day string) (n int64, err error) {
	err = db.read.QueryRowContext(ctx, "SELECT COUNT(*) FROM daily WHERE release = $1 AND day = $2", release, day).Scan(&n)
	return n, err
}
