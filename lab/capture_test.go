//go:build linux

package lab

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"reflect"
	"testing"
	"time"
)

func TestCapture(t *testing.T) {
	eachFamily(t, oneArm(t, Size{Clients: 1, Backends: 1}), func(t *testing.T, l *Lab, f Family) {
		client, backend := l.Host("client1"), l.Host("backend1")
		addr := echo(t, backend, f)
		server := netip.MustParseAddrPort(addr)
		all := must(client.Capture("eth0", CaptureFilter{}))(t)
		ends := must(backend.Links()[0].Capture(CaptureFilter{Flags: FIN | RST, Port: server.Port(), Addr: server.Addr()}))(t)
		other := must(backend.Links()[0].Capture(CaptureFilter{Port: server.Port() + 1}))(t)
		before := time.Now()
		c := dial(t, client, addr)
		speaks(t, "echo", c)
		me := netip.MustParseAddrPort(c.LocalAddr().String())
		c.Close()
		fin, err := ends.Await(bounded(t), func(s Segment) bool { return s.Source == me && s.Flags&FIN != 0 })
		if err != nil {
			t.Fatal(err)
		}
		after := time.Now()
		if fin.Time.Before(before) || fin.Time.After(after) {
			t.Errorf("the FIN was seen at %v, not within %v and %v", fin.Time, before, after)
		}
		data, err := all.Await(bounded(t), func(s Segment) bool { return s.Length > 0 && s.Source == server })
		if err != nil {
			t.Fatal(err)
		}
		if want := len("how do you do\n"); data.Length != want || data.Destination != me || data.Flags&ACK == 0 {
			t.Errorf("the echo: %v, want %d bytes to %v", data, want, me)
		}
		syn := all.Segments()[0]
		if syn.Flags != SYN || fin.Seq-syn.Seq != 1+uint32(data.Length) {
			t.Errorf("SYN %v and FIN %v do not fit", syn, fin)
		}
		for _, s := range ends.Segments() {
			if s.Flags&(FIN|RST) == 0 {
				t.Errorf("the filter let %v pass", s)
			}
		}
		if s := other.Segments(); len(s) != 0 {
			t.Errorf("the filter for another port let %v pass", s)
		}
		for _, capture := range []*Capture{all, ends, other} {
			if n := capture.Lost(); n != 0 {
				t.Errorf("%d segments lost", n)
			}
			if err := capture.Close(); err != nil {
				t.Error(err)
			}
		}
		if _, err := all.Await(bounded(t), func(Segment) bool { return false }); err == nil {
			t.Error("a closed capture went on")
		}
	})
}

// frame builds what decodeSegment reads, in another way.
func frame(s Segment, ipOptions, tcpOptions int) []byte {
	var b bytes.Buffer
	put := func(v any) { binary.Write(&b, binary.BigEndian, v) }
	b.Write(make([]byte, 12))
	tcp := 20 + tcpOptions
	if s.Source.Addr().Is4() {
		put(uint16(0x0800))
		put([]uint8{uint8(0x40 | (20+ipOptions)/4), 0})
		put(uint16(20 + ipOptions + tcp + s.Length))
		put([]uint8{0, 0, 0, 0, 64, 6, 0, 0})
		b.Write(s.Source.Addr().AsSlice())
		b.Write(s.Destination.Addr().AsSlice())
		b.Write(make([]byte, ipOptions))
	} else {
		put(uint16(0x86dd))
		put([]uint8{0x60, 0, 0, 0})
		put(uint16(tcp + s.Length))
		put([]uint8{6, 64})
		b.Write(s.Source.Addr().AsSlice())
		b.Write(s.Destination.Addr().AsSlice())
	}
	put([]uint16{s.Source.Port(), s.Destination.Port()})
	put([]uint32{s.Seq, s.Ack})
	put([]uint8{uint8(tcp / 4 << 4), uint8(s.Flags)})
	put(s.Window)
	b.Write(make([]byte, 4+tcpOptions))
	return b.Bytes()
}

func TestDecodeSegment(t *testing.T) {
	for _, pair := range [][2]string{{"10.77.0.1:80", "10.77.0.2:40000"}, {"[fd77::1]:80", "[fd77::2]:40000"}} {
		want := Segment{
			Source: netip.MustParseAddrPort(pair[0]), Destination: netip.MustParseAddrPort(pair[1]),
			Flags: SYN | ACK, Seq: 1 << 31, Ack: 7, Window: 65535, Length: 1400,
		}
		for _, options := range [][2]int{{0, 0}, {40, 40}, {0, 12}} {
			b := frame(want, options[0], options[1])
			got, ok := decodeSegment(b)
			if !ok || !reflect.DeepEqual(got, want) {
				t.Errorf("options %v: %v, %v, want %v", options, got, ok, want)
			}
		}
	}
}

// Whatever a frame holds, decoding ends, and the length is never negative.
func FuzzDecodeSegment(f *testing.F) {
	for _, pair := range [][2]string{{"10.77.0.1:80", "10.77.0.2:40000"}, {"[fd77::1]:80", "[fd77::2]:40000"}} {
		f.Add(frame(Segment{Source: netip.MustParseAddrPort(pair[0]), Destination: netip.MustParseAddrPort(pair[1]), Length: 5}, 0, 12))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, ok := decodeSegment(b)
		if ok && (s.Length < 0 || !s.Source.IsValid() || !s.Destination.IsValid()) {
			t.Errorf("%v of %x", s, b)
		}
		if !ok && s != (Segment{}) {
			t.Errorf("%v and false", s)
		}
	})
}
