package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/mustermetal/muster/pkg/agent"
)

// testAct is what the act of these tests asks for.
type testAct struct {
	HW string `json:"hw"`
}

// actAt serves an act on a socket and counts how often it was done.
func actAt(t *testing.T, done *int, fails error) (socket string) {
	t.Helper()
	mux := http.NewServeMux()
	handleAct(mux, "test", func(_ context.Context, yes bool, act testAct) ([]string, error) {
		if fails != nil {
			return nil, fails
		}
		if yes {
			*done++
		}
		return []string{"lets " + act.HW + " in"}, nil
	})
	return agentAt(t, mux.ServeHTTP)
}

// TestActIsADryRunFirst: nothing is done without --yes.
func TestActIsADryRunFirst(t *testing.T) {
	done := 0
	socket := actAt(t, &done, nil)
	for _, step := range []struct {
		yes  bool
		want string
		done int
	}{
		{false, "lets x in\nNothing was done: add --yes to do it.\n", 0},
		{true, "lets x in\n", 1},
	} {
		var out bytes.Buffer
		if err := runAct(t.Context(), &out, socket, "test", step.yes, testAct{"x"}); err != nil {
			t.Fatal(err)
		}
		if out.String() != step.want || done != step.done {
			t.Errorf("yes=%v: %q, done %d times; expected %q, %d", step.yes, out.String(), done, step.want, step.done)
		}
	}
}

// TestActFails: each kind of failure has its sentence and its exit code.
func TestActFails(t *testing.T) {
	for _, test := range []struct {
		err  error
		code int
	}{
		{fmt.Errorf("the directory starts: %w", agent.ErrNotReady), exitUnavailable},
		{fmt.Errorf("it is the last one: %w", agent.ErrRefused), exitPermission},
		{errors.New("the disk is full"), exitFailed},
	} {
		err := runAct(t.Context(), io.Discard, actAt(t, new(int), test.err), "test", true, testAct{})
		if got := codeOf(err); got != test.code || err.Error() != test.err.Error() {
			t.Errorf("%v: exit code %d, %v; expected %d", test.err, got, err, test.code)
		}
	}
	socket := actAt(t, new(int), nil)
	if err := runAct(t.Context(), io.Discard, socket, "other", true, testAct{}); codeOf(err) != exitUnavailable || !strings.Contains(err.Error(), "another version") {
		t.Errorf("an act that the agent does not know: %v", err)
	}
	if err := runAct(t.Context(), io.Discard, socket+"x", "test", true, testAct{}); codeOf(err) != exitUnavailable || !strings.Contains(err.Error(), "systemctl status muster") {
		t.Errorf("no agent: %v", err)
	}
	if err := runAct(t.Context(), io.Discard, socket, "test", true, struct{ Name string }{"x"}); codeOf(err) != exitFailed || !strings.Contains(err.Error(), "unknown field") {
		t.Errorf("a request of another version: %v", err)
	}
}

func codeOf(err error) int {
	var coded exitError
	if errors.As(err, &coded) {
		return coded.code
	}
	return exitFailed
}

// TestOperand: one word that is no flag may stand before or after the flags.
func TestOperand(t *testing.T) {
	for _, test := range []struct {
		line, operand string
		yes, fails    bool
	}{
		{line: ""},
		{line: "x", operand: "x"},
		{line: "x --yes", operand: "x", yes: true},
		{line: "--yes x", operand: "x", yes: true},
		{line: "--ca x"},
		{line: "--ca x y", operand: "y"},
		{line: "x y", fails: true},
		{line: "--no x", fails: true},
	} {
		flags := newFlags("test", "", io.Discard)
		yes := flags.Bool("yes", false, "")
		flags.String("ca", "", "")
		operand, err := flags.parseOperand(strings.Fields(test.line))
		if (err != nil) != test.fails || err == nil && (operand != test.operand || *yes != test.yes) {
			t.Errorf("%q: operand %q, yes %v, %v", test.line, operand, *yes, err)
		}
	}
}
