package sockdiag

import "time"

// TCPInfo is what the kernel counts and measures of one connection (TCP_INFO,
// struct tcp_info in linux/tcp.h). Counts begin with the connection. What an older
// kernel does not tell is 0: Size says how much it told.
type TCPInfo struct {
	State           State
	CongestionState CongestionState

	// How often the oldest unacknowledged segment was sent again, how many
	// keepalive or zero-window probes are unanswered, and by which power of two
	// the timer has grown.
	Retransmits, Probes, Backoff uint8

	Options      Options
	SendScale    uint8 // window scale of what the other end advertises, 0 to 14
	ReceiveScale uint8 // window scale of what this end advertises, 0 to 14

	RTO           time.Duration // retransmission timeout, 1 µs steps
	ACKTimeout    time.Duration // delayed acknowledgements, 1 µs steps
	RTT           time.Duration // smoothed, 1 µs steps; 0 if nothing was measured
	RTTVar        time.Duration // mean deviation, 1 µs steps
	MinRTT        time.Duration // the least of the last minutes; 0 if nothing was measured
	ReceiveRTT    time.Duration // as the receiver guesses it; 0 if unknown
	LastSent      time.Duration // since data was last sent; steps of the kernel's clock, 1 to 10 ms, as the next two
	LastReceived  time.Duration // since data was last received
	LastACK       time.Duration // since the other end was last heard, answers to probes included
	Busy          time.Duration // with data unacknowledged or unsent
	WindowLimited time.Duration // of Busy: waiting for the other end's window
	BufferLimited time.Duration // of Busy: waiting for room in the send buffer

	SendMSS, ReceiveMSS, AdvertisedMSS, PathMTU uint32 // bytes

	CongestionWindow   uint32 // segments
	SlowStartThreshold uint32 // segments; 0 if none was set yet
	SendWindow         uint32 // bytes that the other end takes at the moment
	ReceiveWindow      uint32 // bytes that this end has offered
	ReceiveSpace       uint32 // bytes: how much the receiver is tuned for
	ReceiveThreshold   uint32 // bytes: the largest window that this end would offer now

	Unacked, Sacked, Lost, Retransmitting uint32 // segments in flight, of those: reported by SACK, taken for lost, sent again
	Reordering                            uint32 // segments

	BytesAcked         uint64 // by the other end; the SYN counts as one on the connecting side, a FIN on either
	BytesReceived      uint64 // in order; a FIN counts as one
	BytesSent          uint64 // payload, retransmissions included
	BytesRetransmitted uint64
	BytesUnsent        uint32 // in the send queue, never sent yet

	SegmentsSent, SegmentsReceived         uint32 // all of them
	DataSegmentsSent, DataSegmentsReceived uint32 // with payload
	SegmentsRetransmitted                  uint32
	SegmentsDelivered                      uint32 // acknowledged or reported by SACK
	SegmentsDeliveredCE                    uint32 // of those: with a congestion mark
	SegmentsOutOfOrder                     uint32 // received so
	DuplicatesReported                     uint32 // by DSACK
	ReorderingsSeen                        uint32

	PacingRate      uint64 // bytes/s; 0 if not paced
	MaxPacingRate   uint64 // bytes/s; 0 if unlimited
	DeliveryRate    uint64 // bytes/s, the newest measurement
	AppLimited      bool   // DeliveryRate was bounded by how fast the program wrote
	Rehashes        uint32 // how often another path was tried for want of answers
	RTOs            uint16 // how often the retransmission timer has fired
	RTORecoveries   uint16 // periods of that which ended, or still last
	RTOTime         time.Duration
	FastOpenFailure uint8 // why a Fast Open of this end failed (enum tcp_fastopen_client_fail)

	// Size is how many bytes of struct tcp_info the kernel told.
	Size int
}

// CongestionState is the kernel's enum tcp_ca_state.
type CongestionState uint8

const (
	CongestionOpen     CongestionState = iota // all is well
	CongestionDisorder                        // duplicate acknowledgements came
	CongestionReduced                         // the window was reduced: a congestion mark, or a full queue of this host
	CongestionRecovery                        // fast retransmission
	CongestionLoss                            // the retransmission timer has fired
)

// Options are the TCP options that both ends agreed on, and what came of some.
type Options uint8

const (
	OptionTimestamps Options = 1 << iota
	OptionSACK
	OptionWindowScale
	OptionECN             // agreed
	OptionECNSeen         // a segment came that is capable of it
	OptionSYNData         // data of the SYN was acknowledged (Fast Open)
	OptionMicroTimestamps // timestamps count microseconds
	OptionFastOpened      // made by a Fast Open of the other end
)
