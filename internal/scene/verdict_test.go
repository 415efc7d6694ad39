//go:build linux

package scene

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/holdfast-net/holdfast/lab"
)

func TestFigure(t *testing.T) {
	for name, c := range map[string]struct {
		figure            *Figure
		ok                bool
		measured, allowed string
	}{
		"no bound":           {new(Verdict).Count("", 3), true, "3", ""},
		"exactly":            {new(Verdict).Count("", 3).Exactly(3), true, "3", "3"},
		"not exactly":        {new(Verdict).Count("", 2).Exactly(3), false, "2", "3"},
		"at least":           {new(Verdict).Count("", 3).AtLeast(3), true, "3", ">= 3"},
		"fewer":              {new(Verdict).Count("", 2).AtLeast(3), false, "2", ">= 3"},
		"within":             {new(Verdict).Time("", 5*time.Millisecond).Within(5 * time.Millisecond), true, "5.0 ms", "<= 5.0 ms"},
		"one of many late":   {new(Verdict).Time("", time.Second, 2*time.Second, time.Second).Within(time.Second), false, "1000 ms, worst 2000 ms", "<= 1000 ms"},
		"nothing measured":   {new(Verdict).Time("").Within(time.Second), false, "-", "<= 1000 ms"},
		"bytes":              {new(Verdict).Bytes("", 12_345_678).AtMost(9), false, "12 MB", "<= 9 B"},
		"between":            {new(Verdict).Count("", 5).AtLeast(4).AtMost(6), true, "5", "4 to 6"},
		"a negative time":    {new(Verdict).Time("", -time.Millisecond), true, "-1.0 ms", ""},
		"long":               {new(Verdict).Time("", 12*time.Second), true, "12.0 s", ""},
		"nothing, unbounded": {new(Verdict).Time(""), true, "-", ""},
	} {
		f := c.figure
		if f.OK() != c.ok || f.Measured() != c.measured || f.Allowed() != c.allowed {
			t.Errorf("%s: OK %v, measured %q, allowed %q; want %v, %q, %q", name, f.OK(), f.Measured(), f.Allowed(), c.ok, c.measured, c.allowed)
		}
	}
}

func TestVerdict(t *testing.T) {
	late := func(v *Verdict) { v.Time("told", time.Second).Within(time.Millisecond) }
	wrong := func(v *Verdict) { v.Count("cut", 1).Exactly(0) }
	failed := func(v *Verdict) { v.Must(false, "%d bytes are gone", 7) }
	for name, c := range map[string]struct {
		add           []func(*Verdict)
		disturbed     time.Duration
		correct, ok   bool
		machineToo    bool
		wrong, timely int // sentences, with times and without
	}{
		"well":                     {correct: true, ok: true},
		"well, disturbed":          {disturbed: time.Second, correct: true, ok: true},
		"late":                     {add: []func(*Verdict){late}, correct: true, wrong: 1},
		"late, disturbed":          {add: []func(*Verdict){late}, disturbed: disturbedBy, correct: true, machineToo: true, wrong: 2},
		"wrong":                    {add: []func(*Verdict){wrong}, wrong: 1, timely: 1},
		"wrong and late":           {add: []func(*Verdict){wrong, late}, wrong: 2, timely: 1},
		"wrong, disturbed":         {add: []func(*Verdict){wrong, late}, disturbed: time.Second, wrong: 2, timely: 1},
		"failed in words":          {add: []func(*Verdict){failed}, wrong: 1, timely: 1},
		"failed in words, and not": {add: []func(*Verdict){failed, func(v *Verdict) { v.Must(true, "not this") }}, wrong: 1, timely: 1},
	} {
		v := &Verdict{Disturbed: c.disturbed}
		for _, add := range c.add {
			add(v)
		}
		if v.Correct() != c.correct || v.OK() != c.ok || v.machineAtFault() != c.machineToo {
			t.Errorf("%s: correct %v, OK %v, machine at fault %v", name, v.Correct(), v.OK(), v.machineAtFault())
		}
		if a, b := v.Wrong(true), v.Wrong(false); len(a) != c.wrong || len(b) != c.timely {
			t.Errorf("%s: wrong with times %q, without %q; want %d and %d", name, a, b, c.wrong, c.timely)
		}
	}
}

func TestVerdictText(t *testing.T) {
	v := &Verdict{Scene: "s", Variant: Variant{Policy: "reset"}, Family: "ipv6", Seed: 9, Took: time.Second}
	v.Count("kept", 3).Exactly(3)
	v.Time("stall", time.Millisecond).AsPart()
	text := func() string {
		var b strings.Builder
		if err := v.WriteText(&b); err != nil {
			t.Error(err)
		}
		return b.String()
	}
	want := `
s, reset, ipv6 (1.0 s, seed 9): well
           with Holdfast  allowed
  kept     3              3
    stall  1.0 ms
`
	if got := text(); got != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
	v.Count("lost", 1).Exactly(0).Versus("all")
	v.Table(Table{Title: "endings", Header: []string{"how", "seen"}, Rows: [][]string{{"FIN", "EOF"}}})
	want = `
s, reset, ipv6 (1.0 s, seed 9): WRONG
           with Holdfast  allowed  without
  kept     3              3
    stall  1.0 ms
  ! lost   1              0        all

  endings
  how  seen
  FIN  EOF
  WRONG: lost: 1, allowed 0
`
	if got := text(); got != want {
		t.Errorf("got:%s\nwant:%s", got, want)
	}
}

func TestSummary(t *testing.T) {
	a := &Verdict{Scene: "a", Family: "ipv4"}
	a.Count("clients", 3)
	a.Time("told after", time.Second).Within(time.Millisecond).AsHeadline().Versus("never")
	b := &Verdict{Scene: "b", Variant: Variant{Policy: "drain"}, Family: "ipv6"}
	b.Count("cut", 0).Exactly(0)
	var text strings.Builder
	if err := WriteSummary(&text, []*Verdict{a, b, {Scene: "c", Family: "ipv4"}}); err != nil {
		t.Error(err)
	}
	want := `
                              with Holdfast  allowed    without
  a, ipv4         told after  1000 ms        <= 1.0 ms  never    WRONG
  b, drain, ipv6  cut         0              0                   well
  c, ipv4                                                        well
`
	if text.String() != want {
		t.Errorf("got:%s\nwant:%s", &text, want)
	}
}

func TestQuantile(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.Int64Range(-50, 50), 1, 200).Draw(t, "values")
		q := rapid.SampledFrom([]float64{0.01, 0.5, 0.9, 0.99, 1}).Draw(t, "q")
		got := quantile(values, q)
		below, within := 0, 0
		for _, v := range values {
			if v < got {
				below++
			}
			if v <= got {
				within++
			}
		}
		if n := q * float64(len(values)); float64(within) < n || float64(below) >= n {
			t.Errorf("quantile %v of %v is %d", q, values, got)
		}
	})
}

// TestCampaign plays a scene that needs no laboratory.
func TestCampaign(t *testing.T) {
	var seeds []uint64
	s := Scene{
		Name:     "fake",
		Variants: []Variant{{Policy: "reset"}, {Policy: "drain"}},
		Run: func(_ context.Context, e *Env) (*Verdict, error) {
			n := len(seeds)
			seeds = append(seeds, e.Seed)
			switch n {
			case 5:
				return nil, errors.New("the laboratory burns")
			case 6:
				v := e.Verdict()
				v.Count("cut", 2).Exactly(0)
				return v, nil
			}
			v := e.Verdict()
			v.Count("cut", 0).Exactly(0)
			v.Time("told", time.Duration(n+1)*time.Millisecond)
			return v, nil
		},
	}
	played := 0
	r := Campaign(t.Context(), CampaignOptions{
		Scene: s, Runs: 3, Seed: 42,
		OnRun: func(done, of int, _ Variant, _ lab.Family, _ uint64, _ *Verdict, _ error) {
			if played++; done != played || of != 12 {
				t.Errorf("run %d of %d, after %d runs", done, of, played)
			}
		},
	})
	if r.Played != 12 || played != 12 || r.Again != 0 {
		t.Errorf("played %d, reported %d, again %d", r.Played, played, r.Again)
	}
	// The same moment for every variant and family of one run, another for the next.
	if seeds[0] != 42 || seeds[0] != seeds[3] || seeds[4] != seeds[7] || seeds[4] == seeds[0] || seeds[8] == seeds[4] {
		t.Errorf("seeds %v", seeds)
	}
	want := []Failure{
		{Variant{Policy: "reset"}, "ipv6", seeds[5], []string{"scene fake (reset, ipv6): the laboratory burns"}},
		{Variant{Policy: "drain"}, "ipv4", seeds[6], []string{"cut: 2, allowed 0"}},
	}
	if !slices.EqualFunc(r.Failures, want, func(a, b Failure) bool {
		return a.Variant == b.Variant && a.Family == b.Family && a.Seed == b.Seed && slices.Equal(a.Why, b.Why)
	}) {
		t.Errorf("failures %+v\nwant     %+v", r.Failures, want)
	}
	var told, cut []Distribution
	for _, d := range r.Distributions {
		switch d.Figure {
		case "told":
			told = append(told, d)
		case "cut":
			cut = append(cut, d)
		}
	}
	if len(told) != 4 || told[0].Family != "ipv4" || told[0].Policy != "reset" || told[0].N != 3 ||
		told[0].Min != 1e6 || told[0].P50 != 5e6 || told[0].Max != 9e6 || told[1].N != 2 {
		t.Errorf("told %+v", told)
	}
	if len(cut) != 4 || cut[2].Policy != "drain" || cut[2].Family != "ipv4" || cut[2].Outside != 1 || cut[2].Max != 2 || cut[0].Outside != 0 {
		t.Errorf("cut %+v", cut)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"fake: 10 of 12 runs well", "WRONG: drain, ipv4, seed", "again: holdfast demo fake --policy drain --family 4 --seed"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("the text lacks %q:\n%s", want, &text)
		}
	}
}

// Parallel runs are played at the same time, and each once.
func TestCampaignInParallel(t *testing.T) {
	const beside = 3
	together := make(chan struct{}, beside)
	release := make(chan struct{})
	s := Scene{Variants: []Variant{{}}, Run: func(ctx context.Context, e *Env) (*Verdict, error) {
		together <- struct{}{}
		if len(together) == beside {
			close(release) // all of them are there: nobody waits for one that is not played yet
		}
		select {
		case <-release:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		v := e.Verdict()
		v.Count("seed", int(e.Seed))
		return v, nil
	}}
	r := Campaign(t.Context(), CampaignOptions{Scene: s, Runs: beside, Families: []lab.Family{lab.IPv4}, Seed: 7, Parallel: beside})
	if r.Played != beside || len(r.Failures) != 0 || len(r.Distributions) != 1 || r.Distributions[0].N != beside || r.Distributions[0].Min != 7 {
		t.Errorf("%+v", r)
	}
}

func TestCampaignEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := Scene{Variants: []Variant{{}}, Run: func(ctx context.Context, e *Env) (*Verdict, error) {
		if e.Family == lab.IPv6 {
			cancel()
			return nil, ctx.Err()
		}
		return e.Verdict(), nil
	}}
	r := Campaign(ctx, CampaignOptions{Scene: s, Runs: 100})
	if r.Played != 1 || len(r.Failures) != 0 {
		t.Errorf("played %d, failures %+v", r.Played, r.Failures)
	}
}

func TestJSON(t *testing.T) {
	v := &Verdict{Scene: "s", Variant: Variant{Policy: "reset", Fault: "death", Title: "t"}, Family: "ipv4", Seed: 1}
	v.Time("told", time.Second).Within(time.Minute)
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"ok":true,"scene":"s","policy":"reset","fault":"death","family":"ipv4","seed":1,"took_ns":0,"disturbed_ns":0,` +
		`"figures":[{"name":"told","unit":"ns","values":[1000000000],"at_most":60000000000}]}`
	if string(b) != want {
		t.Errorf("got  %s\nwant %s", b, want)
	}
}

// TestLines cuts output into pieces wherever it may be cut.
func TestLines(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := "a line for people\n{\"count\":1}\n\n{\"count\":2}\n{\"count\":3"
		var l lines[RelayEvent]
		for text != "" {
			n := rapid.IntRange(1, len(text)).Draw(t, "n")
			if k, err := l.Write([]byte(text[:n])); k != n || err != nil {
				t.Fatalf("Write gave %d, %v", k, err)
			}
			text = text[n:]
		}
		got := l.all()
		if len(got) != 2 || got[0].Count != 1 || got[1].Count != 2 {
			t.Errorf("got %+v", got)
		}
		if got := got[1]; got.Cause != "" || got.State != "" || !strings.HasSuffix(got.String(), `"count":2}`) {
			t.Errorf("what a line does not have is there: %v", got)
		}
		if ev, err := l.await(context.Background(), func(e RelayEvent) bool { return e.Count == 2 }); err != nil || ev.Count != 2 {
			t.Errorf("await gave %+v, %v", ev, err)
		}
	})
}
