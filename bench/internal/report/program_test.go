package report

import "testing"

func TestCommand(t *testing.T) {
	t.Parallel()
	for name, only := range map[string]string{"forward": "Isekai", "tuning": "pgo"} {
		got := Command(name, []string{"-rounds", "3", "-postgres", "postgres://u:secret@h/d", "--program=/tmp/x", "-only", only})
		if want := "go run ./" + name + " -rounds 3 -postgres ... -program ... -only " + only; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
