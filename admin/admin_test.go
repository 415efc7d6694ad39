package admin

import (
	"encoding/json"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestSeconds(t *testing.T) {
	text, err := json.Marshal(Seconds(1500 * time.Millisecond))
	if err != nil || string(text) != "1.5" {
		t.Errorf("1.5 s is %s, %v", text, err)
	}
	for _, d := range []time.Duration{0, 1, -time.Second, time.Hour + 123456789} {
		text, err := json.Marshal(Seconds(d))
		if err != nil {
			t.Fatal(err)
		}
		var back Seconds
		if err := json.Unmarshal(text, &back); err != nil || back.Duration() != d {
			t.Errorf("%v came back from %s as %v, %v", d, text, back, err)
		}
	}
	for _, bad := range []string{`"1s"`, "1e300", "null x"} {
		if err := json.Unmarshal([]byte(bad), new(Seconds)); err == nil {
			t.Errorf("%s was taken for a span of time", bad)
		}
	}
}
