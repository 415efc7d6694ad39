package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const perfScript = `
ffffffff81a00000 tcp_sendmsg ([kernel.kallsyms])
ffffffff81a01000 tcp_sendmsg_locked ([kernel.kallsyms])
ffffffff81a02000 __x64_sys_sendto ([kernel.kallsyms])
          481234 internal/runtime/syscall/linux.Syscall6 (/usr/bin/holdfast)
          491234 github.com/holdfast-net/holdfast/relay.(*loop).pump (/usr/bin/holdfast)
          491999 github.com/holdfast-net/holdfast/relay.(*loop).run (/usr/bin/holdfast)

          491234 github.com/holdfast-net/holdfast/relay.(*loop).pump (/usr/bin/holdfast)
          491999 github.com/holdfast-net/holdfast/relay.(*loop).run (/usr/bin/holdfast)
          491999 github.com/holdfast-net/holdfast/relay.(*loop).run (/usr/bin/holdfast)

ffffffff81b00000 asm_sysvec_apic_timer_interrupt ([kernel.kallsyms])

          401000 runtime.sysmon (/usr/bin/holdfast)
`

func TestProfileReadsCallChains(t *testing.T) {
	var p Profile
	if err := p.read(strings.NewReader(perfScript)); err != nil {
		t.Fatal(err)
	}
	want := Profile{
		Samples: 4, User: 0.5,
		Syscalls: []Share{{"(interrupt, switch, entry)", 0.25}, {"sendto", 0.25}},
		Self: []Share{
			{"asm_sysvec_apic_timer_interrupt", 0.25}, {"github.com/holdfast-net/holdfast/relay.(*loop).pump", 0.25},
			{"runtime.sysmon", 0.25}, {"tcp_sendmsg", 0.25},
		},
		Within: []Share{{"relay.(*loop).pump", 0.5}, {"relay.(*loop).run", 0.5}},
	}
	if diff := cmp.Diff(want, p); diff != "" {
		t.Error(diff)
	}
}

func TestCallCounts(t *testing.T) {
	table := `    calls    errors syscall
--------- --------- ----------------
     1000           sendto
     1500         7 recvfrom
      100           epoll_pwait
--------- --------- ----------------
     2600         7 total
`
	want := []Share{{"recvfrom (7 failed)", 3}, {"sendto", 2}, {"epoll_pwait", 0.2}}
	if diff := cmp.Diff(want, callCounts(table, 500)); diff != "" {
		t.Error(diff)
	}
}
