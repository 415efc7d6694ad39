package connected

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"
)

func tuple(local, remote string) Tuple {
	return Tuple{netip.MustParseAddrPort(local), netip.MustParseAddrPort(remote)}
}

// noon is a moment as Records have it.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 123456789, time.UTC)

// golden are records by the names that they have in testdata/records.txt.
var golden = map[string]Record{
	"ipv4": {
		Tuple: tuple("10.0.0.100:5432", "10.0.0.7:40112"), Kind: Socket,
		HasISN: true, ISN: 0x01020304, RemoteISN: 0xfffefdfc, Since: noon,
	},
	"ipv6": {
		Tuple: tuple("[2001:db8::100]:443", "[2001:db8:1::7]:65535"), Kind: RelayClient,
		HasISN: true, ISN: 0, RemoteISN: 1, Since: noon, Owner: "redis",
	},
	"backend leg, no numbers": {
		Tuple: tuple("10.0.0.100:20001", "10.0.0.21:6379"), Kind: RelayBackend,
		Since: time.Unix(0, -1).UTC(), Owner: strings.Repeat("é", 127) + "!",
	},
}

// The encoding is what nodes of every version have in common: what stands in
// the file never changes.
func TestGolden(t *testing.T) {
	f, err := os.Open("testdata/records.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	seen := 0
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		part := strings.Split(line, ": ")
		if len(part) != 3 {
			t.Fatalf("%q is not name: key: value", line)
		}
		want, ok := golden[part[0]]
		if !ok {
			t.Fatalf("there is no record %q", part[0])
		}
		seen++
		if key := AppendKey(nil, want.Tuple); hex.EncodeToString(key) != part[1] {
			t.Errorf("%s: its key is %x, want %s", part[0], key, part[1])
		}
		if value := AppendValue(nil, want); hex.EncodeToString(value) != part[2] {
			t.Errorf("%s: its value is %x, want %s", part[0], value, part[2])
		}
		key, _ := hex.DecodeString(part[1])
		value, _ := hex.DecodeString(part[2])
		if got, err := Decode(key, value); err != nil || got != want {
			t.Errorf("%s is %+v, %v; want %+v", part[0], got, err, want)
		}
		// What a later version appends is ignored.
		if got, err := Decode(key, append(value, "more"...)); err != nil || got != want {
			t.Errorf("%s with more behind it is %+v, %v; want %+v", part[0], got, err, want)
		}
		for n := range value {
			if _, err := Decode(key, value[:n]); err == nil {
				t.Errorf("%s: %d bytes of its value are enough", part[0], n)
			}
		}
		for n := range key {
			if _, err := Decode(key[:n], value); err == nil {
				t.Errorf("%s: %d bytes of its key are enough", part[0], n)
			}
		}
		if _, err := Decode(append(key, 0), value); err == nil {
			t.Errorf("%s: a longer key is taken", part[0])
		}
		// What cannot be understood is refused by its name.
		for _, which := range []string{"key", "value"} {
			k, v := bytes.Clone(key), bytes.Clone(value)
			map[string][]byte{"key": k, "value": v}[which][0] = 77
			var unknown *FormatError
			if _, err := Decode(k, v); !errors.As(err, &unknown) || unknown.Part != which || unknown.Form != 77 {
				t.Errorf("%s with a %s of form 77: %v", part[0], which, err)
			}
		}
	}
	if seen != len(golden) {
		t.Errorf("%d records in the file, want %d", seen, len(golden))
	}
}

func TestOwnerIsCut(t *testing.T) {
	r := golden["ipv4"]
	r.Owner = strings.Repeat("x", MaxOwner+10)
	got, err := Decode(AppendKey(nil, r.Tuple), AppendValue(nil, r))
	if err != nil || len(got.Owner) != MaxOwner {
		t.Errorf("an owner of %d bytes, %v", len(got.Owner), err)
	}
}

// Whatever comes is refused or is a record, which is told in one way only.
func FuzzDecode(f *testing.F) {
	for _, r := range golden {
		f.Add(AppendKey(nil, r.Tuple), AppendValue(nil, r))
	}
	f.Add(make([]byte, 37), []byte{1, 2, 3})
	f.Fuzz(func(t *testing.T, key, value []byte) {
		r, err := Decode(key, value)
		if err != nil {
			if r != (Record{}) {
				t.Errorf("%v, and a record %+v", err, r)
			}
			return
		}
		if n, err := r.normal(); err != nil || n != r.Tuple {
			t.Errorf("%+v is not as tuples are: %v", r, err)
		}
		k, v := AppendKey(nil, r.Tuple), AppendValue(nil, r)
		if !bytes.Equal(k, key) {
			t.Errorf("the key %x becomes %x", key, k)
		}
		if len(v) > len(value) {
			t.Errorf("the value %x becomes %x", value, v)
		}
		if again, err := Decode(k, v); err != nil || again != r {
			t.Errorf("%+v becomes %+v, %v", r, again, err)
		}
	})
}
