package main

import "testing"

// TestCompletions: every command tells its flags, and what their values are.
func TestCompletions(t *testing.T) {
	for _, c := range completions(t.Context()) {
		if len(c.Options) == 0 && c.Name != "completion" {
			t.Errorf("bootstrap %s told no flag", c.Name)
		}
		for _, o := range c.Options {
			if o.Usage == "" || o.Value == "value" || o.Value == "string" {
				t.Errorf("bootstrap %s %s: the flag has no usage with a name in backquotes", c.Name, o.Flag)
			}
		}
	}
}
