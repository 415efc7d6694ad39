package admin

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write testdata anew")

// fill gives every field a value, so that none can hide behind omitempty.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Date(2026, 1, 2, 3, 4, *n%60, 5e8, time.UTC)))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), n)
	case reflect.Map:
		value := reflect.New(v.Type().Elem()).Elem()
		fill(value, n)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(reflect.ValueOf("closed"), value)
	case reflect.String:
		v.SetString("text")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		if v.Type() == reflect.TypeFor[Seconds]() {
			v.SetInt(int64(1500*time.Millisecond) + int64(*n)*int64(time.Second))
			return
		}
		v.SetInt(int64(*n))
	case reflect.Uint64:
		v.SetUint(uint64(*n))
	default:
		panic("a type that is not in the API yet: " + v.Type().String())
	}
}

// The names of fields, and how values are written, are a promise: what changes
// here breaks somebody's script. go test -run Golden ./admin -update writes them.
func TestGolden(t *testing.T) {
	seen := make(map[string]bool)
	for _, v := range []any{
		&Status{}, &Services{}, &Backends{}, &Connections{}, &Events{}, &Event{}, &Reload{}, &Error{},
		&BackendCommand{}, &BackendResult{}, &Reset{}, &ResetResult{}, &Addresses{}, &ReleaseResult{},
	} {
		name := strings.ToLower(reflect.TypeOf(v).Elem().Name()) + ".json"
		seen[name] = true
		t.Run(name, func(t *testing.T) {
			n := 0
			fill(reflect.ValueOf(v).Elem(), &n)
			got, err := json.MarshalIndent(v, "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, '\n')
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("the JSON of %T has changed (-promised +now):\n%s", v, diff)
			}
			// What is written can be read.
			back := reflect.New(reflect.TypeOf(v).Elem()).Interface()
			if err := json.Unmarshal(want, back); err != nil {
				t.Fatal(err)
			}
			again, err := json.MarshalIndent(back, "", "  ")
			if err != nil || !bytes.Equal(append(again, '\n'), want) {
				t.Errorf("%T is read back as %s, %v", v, again, err)
			}
		})
	}
	files, err := filepath.Glob("testdata/*.json")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if !seen[filepath.Base(f)] {
			t.Errorf("%s belongs to no type", f)
		}
	}
}
