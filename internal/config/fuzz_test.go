package config

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// FuzzParse holds for every text: Parse ends soon and does not panic; it gives a
// configuration or errors, never both; every error has its place; and what it
// gives can be written down and read again.
func FuzzParse(f *testing.F) {
	for _, name := range append(files(f, "testdata/*/*.yaml"), "../../packaging/holdfast.yaml") {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(text) < 8<<10 {
			f.Add(string(text))
		}
	}
	f.Fuzz(func(t *testing.T, text string) {
		if len(text) > 16<<10 {
			return
		}
		start := time.Now()
		c, err := Parse("holdfast.yaml", []byte(text))
		if d := time.Since(start); d > 5*time.Second {
			t.Errorf("Parse took %v", d)
		}
		if (c == nil) != (err != nil) {
			t.Fatalf("Parse gave %v, %v", c, err)
		}
		if err != nil {
			errs, ok := errors.AsType[Errors](err)
			if !ok {
				t.Fatalf("the error is a %T: %v", err, err)
			}
			checkErrors(t, []byte(text), errs)
			return
		}
		same(t, c, parse(t, render(c)))
	})
}

// FuzzAddress holds for every text: what one of the parsers understands is written
// as something that it understands as the same.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{
		":80", "10.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:80", "unix:/run/x", "host.example:80", "*:80", "8080", "::1", "tcp://x:1", "[::ffff:1.2.3.4]:1", "a:b:c", "[", "x:+1",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for name, parse := range map[string]func(string) (Address, error){"listen": ParseListen, "backend": ParseBackendAddress} {
			a, err := parse(s)
			if err != nil {
				if a != (Address{}) || !strings.HasPrefix(err.Error(), `"`) {
					t.Errorf("%s %q: %v, %v", name, s, a, err)
				}
				continue
			}
			again, err := parse(a.String())
			if err != nil || again != a || !a.IsValid() || a.IsUnix() != strings.HasPrefix(s, "unix:") {
				t.Errorf("%s %q: %#v, and written as %q it is %#v, %v", name, s, a, a.String(), again, err)
			}
		}
	})
}
