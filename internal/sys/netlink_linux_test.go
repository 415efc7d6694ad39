package sys

import (
	"bytes"
	"errors"
	"syscall"
	"testing"
)

func TestNetlinkMessages(t *testing.T) {
	b := appendMessage(nil, 20, 0x10, 7, []byte("abcde"))
	b = append(b, 0, 0, 0) // to the next multiple of 4
	b = appendMessage(b, syscall.NLMSG_DONE, 0, 7, []byte{0xff, 0xff, 0xff, 0xff})
	b = appendMessage(b, syscall.NLMSG_ERROR, 0, 8, []byte{0, 0, 0, 0})
	msgs, err := SplitMessages(nil, b)
	if err != nil || len(msgs) != 3 {
		t.Fatalf("%+v, %v", msgs, err)
	}
	if m := msgs[0]; m.Type != 20 || m.Flags != 0x10 || m.Seq != 7 || string(m.Body) != "abcde" || !m.Interrupted() {
		t.Errorf("%+v", m)
	}
	for i, want := range []struct {
		done, answer       bool
		doneErr, answerErr error
	}{
		{},
		{done: true, doneErr: syscall.Errno(1)},
		{answer: true},
	} {
		done, doneErr := msgs[i].Done()
		answer, answerErr := msgs[i].Answer()
		if done != want.done || answer != want.answer || !errors.Is(doneErr, want.doneErr) || !errors.Is(answerErr, want.answerErr) {
			t.Errorf("message %d: done %t (%v), answer %t (%v); want %+v", i, done, doneErr, answer, answerErr, want)
		}
	}
	if answer, err := (NetlinkMessage{Type: syscall.NLMSG_ERROR}).Answer(); !answer || err == nil {
		t.Error("an answer without a code is taken for a good one")
	}
	for name, b := range map[string][]byte{
		"a rest": append(bytes.Clone(b), 1), "cut off": b[:len(b)-1], "a length of 3": {3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0},
	} {
		if _, err := SplitMessages(nil, b); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

// Whatever comes, the messages lie in it one behind the other.
func FuzzSplitMessages(f *testing.F) {
	f.Add(appendMessage(appendMessage(nil, 20, 2, 1, []byte("abcd")), 3, 0, 1, nil))
	f.Add([]byte{17, 0, 0, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 9})
	f.Fuzz(func(t *testing.T, b []byte) {
		msgs, err := SplitMessages(nil, b)
		var again []byte
		for i, m := range msgs {
			again = appendMessage(again, m.Type, m.Flags, m.Seq, m.Body)
			if i < len(msgs)-1 || err != nil {
				for len(again)%4 != 0 {
					again = append(again, 0)
				}
			}
			_, _ = m.Done()
			_, _ = m.Answer()
			_ = m.Interrupted()
		}
		if n := len(again); n > (len(b)+3)&^3 || err == nil && (n+3)&^3 < len(b) {
			t.Fatalf("%d bytes, %v, in %d messages of %d", len(b), err, len(msgs), n)
		}
		at := 0
		for _, m := range msgs { // type, flags, number and body are those that came
			if !bytes.Equal(b[at+4:at+12], again[at+4:at+12]) || !bytes.Equal(b[at+16:at+16+len(m.Body)], m.Body) {
				t.Fatalf("%x\n%x", b, again)
			}
			at += (16 + len(m.Body) + 3) &^ 3
		}
	})
}
