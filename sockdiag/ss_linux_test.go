package sockdiag

import (
	"io"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// ss reads the same struct by the kernel's own header.
func TestInfoAsSSReadsIt(t *testing.T) {
	ss, err := exec.LookPath("ss")
	if err != nil {
		t.Skip("ss (iproute2) is not installed")
	}
	s := newSite(t)
	p := s.connect(s.listen("tcp4", "127.0.0.1:1001"), "tcp4", "127.0.0.1:1001")
	for range 5 {
		if _, err := p.client.Write(make([]byte, 30000)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.server, make([]byte, 30000)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.server.Write(make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(p.client, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
	}
	read := func() TCPInfo {
		all := s.list(Filter{States: StatesOf(Established), LocalPorts: []PortRange{Port(1001)}}, ListOptions{Info: true})
		if len(all) != 1 || all[0].Info == nil {
			t.Fatalf("%+v", all)
		}
		return *all[0].Info
	}
	// A delayed acknowledgement may still be sent: ask until nothing has changed
	// around the answer of ss.
	var info TCPInfo
	var fields map[string]string
	until(t, "a connection at rest", func() bool {
		before := read()
		var out []byte
		s.do(func() (err error) {
			out, err = exec.CommandContext(t.Context(), ss, "-tinOH", "state", "established", "sport", "=", ":1001").Output()
			return err
		})
		info = read()
		fields = make(map[string]string)
		for _, word := range strings.Fields(string(out)) {
			if k, v, ok := strings.Cut(word, ":"); ok {
				fields[k] = v
			}
		}
		for _, i := range []*TCPInfo{&before, &info} {
			i.LastSent, i.LastReceived, i.LastACK = 0, 0, 0
		}
		return before == info && fields["cwnd"] != ""
	})

	millis := func(d time.Duration) string {
		return strconv.FormatFloat(float64(d)/float64(time.Millisecond), 'g', -1, 64)
	}
	number := func(n uint64) string { return strconv.FormatUint(n, 10) }
	compared := 0
	for key, ours := range map[string]string{
		"rto":            millis(info.RTO),
		"rtt":            millis(info.RTT) + "/" + millis(info.RTTVar),
		"minrtt":         millis(info.MinRTT),
		"mss":            number(uint64(info.SendMSS)),
		"rcvmss":         number(uint64(info.ReceiveMSS)),
		"advmss":         number(uint64(info.AdvertisedMSS)),
		"pmtu":           number(uint64(info.PathMTU)),
		"cwnd":           number(uint64(info.CongestionWindow)),
		"wscale":         number(uint64(info.SendScale)) + "," + number(uint64(info.ReceiveScale)),
		"bytes_sent":     number(info.BytesSent),
		"bytes_acked":    number(info.BytesAcked),
		"bytes_received": number(info.BytesReceived),
		"segs_out":       number(uint64(info.SegmentsSent)),
		"segs_in":        number(uint64(info.SegmentsReceived)),
		"data_segs_out":  number(uint64(info.DataSegmentsSent)),
		"data_segs_in":   number(uint64(info.DataSegmentsReceived)),
		"delivered":      number(uint64(info.SegmentsDelivered)),
		"rcv_space":      number(uint64(info.ReceiveSpace)),
		"rcv_ssthresh":   number(uint64(info.ReceiveThreshold)),
		"snd_wnd":        number(uint64(info.SendWindow)),
		"rcv_wnd":        number(uint64(info.ReceiveWindow)),
	} {
		theirs, ok := fields[key]
		if !ok {
			continue // an older ss
		}
		compared++
		if theirs != ours {
			t.Errorf("%s is %s, ss says %s", key, ours, theirs)
		}
	}
	if compared < 15 {
		t.Errorf("only %d fields were compared: %v", compared, fields)
	}
}
