package directory

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/mustermetal/muster/pkg/member"
)

// schemaVersion is the version of the tables below.
const schemaVersion = 5

// schema is created whole by Bootstrap. Every row carries the epoch of the
// decree under which it was made.
var schema = []string{
	`CREATE TABLE meta (
		id         INTEGER PRIMARY KEY CHECK (id = 1),
		schema     INTEGER NOT NULL,
		spec_id    TEXT NOT NULL,
		epoch      INTEGER NOT NULL,
		generation INTEGER NOT NULL,
		ca_hash    TEXT NOT NULL)`,
	`CREATE TABLE member (
		inst     TEXT PRIMARY KEY,
		hw       TEXT NOT NULL,
		name     TEXT NOT NULL UNIQUE,
		address  TEXT NOT NULL,
		role     TEXT NOT NULL CHECK (role IN ('control-plane', 'worker')),
		first    INTEGER NOT NULL CHECK (first IN (0, 1)),
		phase    TEXT NOT NULL,
		detail   TEXT NOT NULL,
		epoch    INTEGER NOT NULL,
		expected INTEGER NOT NULL DEFAULT 1 CHECK (expected IN (0, 1)))`,
	`CREATE UNIQUE INDEX member_first ON member (first) WHERE first = 1`,
	`CREATE TABLE enrolment (
		inst  TEXT PRIMARY KEY,
		hw    TEXT NOT NULL,
		key   TEXT NOT NULL,
		epoch INTEGER NOT NULL)`,
	`CREATE TABLE revoked (
		inst    TEXT PRIMARY KEY,
		hw      TEXT NOT NULL,
		name    TEXT NOT NULL,
		address TEXT NOT NULL,
		first   INTEGER NOT NULL CHECK (first IN (0, 1)),
		epoch   INTEGER NOT NULL)`,
	`CREATE TABLE approval (
		hw    TEXT PRIMARY KEY,
		epoch INTEGER NOT NULL)`,
	`CREATE TABLE spec (
		id             INTEGER PRIMARY KEY CHECK (id = 1),
		revision       INTEGER NOT NULL,
		control_planes INTEGER NOT NULL,
		text           TEXT NOT NULL,
		epoch          INTEGER NOT NULL)`,
	`CREATE TABLE join_lock (
		id     INTEGER PRIMARY KEY CHECK (id = 1),
		holder TEXT,
		token  INTEGER NOT NULL,
		beat   INTEGER NOT NULL,
		epoch  INTEGER NOT NULL)`,
}

// createSchema makes the tables, the two single rows and the rows to begin with in
// one transaction. The tokens of the join lock go on above those of all former
// generations, so that no turn of a lost directory is taken for one of this.
func createSchema(ctx context.Context, db *sql.DB, right Right, rows []member.Record) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin: %w", err)
	}
	defer tx.Rollback() //nolint:errcheck // after Commit it does nothing
	for _, statement := range schema {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("create tables: %w", err)
		}
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO meta VALUES (1, ?, ?, ?, ?, ?)`,
		int64(schemaVersion), right.specID, int64(right.epoch), int64(right.generation), right.caHash); err != nil {
		return fmt.Errorf("write meta: %w", err)
	}
	if _, err := tx.ExecContext(ctx, `INSERT INTO join_lock VALUES (1, NULL, ?, 0, ?)`, int64(right.generation)<<32, int64(right.epoch)); err != nil {
		return fmt.Errorf("write join lock: %w", err)
	}
	s := &store{want: decree{right.epoch, right.generation, right.caHash}}
	for _, r := range rows {
		if err := s.insert(ctx, tx, r); err != nil {
			return fmt.Errorf("write the row of %s: %w", r.Name, err)
		}
	}
	if err := tx.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// decree is what the directory must say of itself.
type decree struct {
	epoch, generation uint64
	caHash            string
}

// verifyMeta reads meta and compares it. It returns ErrFalse for another cluster
// CA, epoch or generation, and ErrRefused for a schema that this binary does not
// know.
func verifyMeta(ctx context.Context, db *sql.DB, want decree) error {
	var version, epoch, generation int64
	var caHash string
	err := db.QueryRowContext(ctx, `SELECT schema, epoch, generation, ca_hash FROM meta WHERE id = 1`).
		Scan(&version, &epoch, &generation, &caHash)
	if errors.Is(err, sql.ErrNoRows) {
		return fmt.Errorf("%w: it says nothing of itself", ErrFalse)
	}
	if err != nil {
		return fmt.Errorf("read meta: %w", err)
	}
	if version != schemaVersion {
		return fmt.Errorf("%w: its tables have version %d, this bootstrap knows version %d; run the same bootstrap on all control planes",
			ErrRefused, version, schemaVersion)
	}
	if caHash != want.caHash || epoch != int64(want.epoch) || generation != int64(want.generation) {
		return fmt.Errorf("%w: it says epoch %d, generation %d, cluster CA %s; the decree says epoch %d, generation %d, cluster CA %s",
			ErrFalse, epoch, generation, caHash, want.epoch, want.generation, want.caHash)
	}
	return nil
}
