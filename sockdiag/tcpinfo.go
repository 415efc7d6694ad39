package sockdiag

import (
	"math"
	"time"
)

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

// tcpInfoSize is that of the struct tcp_info which this package knows whole.
const tcpInfoSize = 248

// ParseTCPInfo reads a struct tcp_info as the kernel of this machine fills it,
// of whatever size.
func ParseTCPInfo(b []byte) TCPInfo {
	var whole [tcpInfoSize]byte // an older kernel's is shorter: the rest is 0
	size := len(b)
	copy(whole[:], b)
	var (
		u16    = func(at int) uint16 { return order.Uint16(whole[at:]) }
		u32    = func(at int) uint32 { return order.Uint32(whole[at:]) }
		u64    = func(at int) uint64 { return order.Uint64(whole[at:]) }
		micros = func(at int) time.Duration { return time.Duration(u32(at)) * time.Microsecond }
		millis = func(at int) time.Duration { return time.Duration(u32(at)) * time.Millisecond }
		long   = func(at int) time.Duration { // microseconds in 64 bits
			return time.Duration(min(u64(at), math.MaxInt64/uint64(time.Microsecond))) * time.Microsecond
		}
		rate = func(at int) uint64 { // all ones: no limit
			if v := u64(at); v != math.MaxUint64 {
				return v
			}
			return 0
		}
	)
	sendScale, receiveScale, appLimited, fastOpenFailure := bitFields(whole[6], whole[7])
	t := TCPInfo{
		State:           State(whole[0]),
		CongestionState: CongestionState(whole[1]),
		Retransmits:     whole[2],
		Probes:          whole[3],
		Backoff:         whole[4],
		Options:         Options(whole[5]),
		SendScale:       sendScale,
		ReceiveScale:    receiveScale,
		AppLimited:      appLimited,
		FastOpenFailure: fastOpenFailure,

		RTO:                micros(8),
		ACKTimeout:         micros(12),
		SendMSS:            u32(16),
		ReceiveMSS:         u32(20),
		Unacked:            u32(24),
		Sacked:             u32(28),
		Lost:               u32(32),
		Retransmitting:     u32(36),
		LastSent:           millis(44),
		LastReceived:       millis(52),
		LastACK:            millis(56),
		PathMTU:            u32(60),
		ReceiveThreshold:   u32(64),
		RTT:                micros(68),
		RTTVar:             micros(72),
		SlowStartThreshold: u32(76),
		CongestionWindow:   u32(80),
		AdvertisedMSS:      u32(84),
		Reordering:         u32(88),
		ReceiveRTT:         micros(92),
		ReceiveSpace:       u32(96),

		SegmentsRetransmitted: u32(100),
		PacingRate:            rate(104),
		MaxPacingRate:         rate(112),
		BytesAcked:            u64(120),
		BytesReceived:         u64(128),
		SegmentsSent:          u32(136),
		SegmentsReceived:      u32(140),
		BytesUnsent:           u32(144),
		MinRTT:                micros(148),
		DataSegmentsReceived:  u32(152),
		DataSegmentsSent:      u32(156),
		DeliveryRate:          u64(160),
		Busy:                  long(168),
		WindowLimited:         long(176),
		BufferLimited:         long(184),
		SegmentsDelivered:     u32(192),
		SegmentsDeliveredCE:   u32(196),
		BytesSent:             u64(200),
		BytesRetransmitted:    u64(208),
		DuplicatesReported:    u32(216),
		ReorderingsSeen:       u32(220),
		SegmentsOutOfOrder:    u32(224),
		SendWindow:            u32(228),
		ReceiveWindow:         u32(232),
		Rehashes:              u32(236),
		RTOs:                  u16(240),
		RTORecoveries:         u16(242),
		RTOTime:               millis(244),
		Size:                  size,
	}
	if t.SlowStartThreshold >= math.MaxInt32 { // TCP_INFINITE_SSTHRESH
		t.SlowStartThreshold = 0
	}
	if u32(148) == math.MaxUint32 { // none measured
		t.MinRTT = 0
	}
	if t.State == Listen { // the same bytes are its queue, which Socket tells
		t.Unacked, t.Sacked = 0, 0
	}
	return t
}

// bitFields takes the two bytes of bit fields apart, which C fills from the low
// end on a little-endian machine and from the high end on a big-endian one.
func bitFields(scales, flags byte) (send, receive uint8, appLimited bool, fastOpenFailure uint8) {
	if order.Uint16([]byte{1, 0}) == 1 {
		return scales & 0xf, scales >> 4, flags&1 != 0, flags >> 1 & 3
	}
	return scales >> 4, scales & 0xf, flags&0x80 != 0, flags >> 5 & 3
}
