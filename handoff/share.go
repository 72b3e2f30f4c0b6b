package handoff

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
)

// Share says which new connections a candidate gets while the active generation keeps the rest. The zero value is nobody:
// Split refuses it.
type Share struct {
	// Portion, 0 to 1, is how many of those that Always and Never do not name. Each new connection is decided by chance, or
	// with Sticky by its client. The kernel compares with a number of 32 bits, so it is exact to 1 in 4 billion.
	Portion float64
	// Sticky decides by a hash of the client's address: it meets the same generation each time. The hash differs from
	// candidate to candidate, so it is not always the same clients who try the new one; raising the portion takes
	// nobody back. Behind a proxy or a translating balancer, all have one address and go one way.
	// Datagrams are always decided like this, for chance would tear a conversation in two.
	Sticky bool
	// Always are clients that go to the candidate, Never those that do not. Never wins. At most MaxNetworks of both.
	// Addresses are those that the kernel sees; IPv4 ones are written as IPv4 on dual-stack sockets too.
	Always, Never []netip.Prefix
}

// MaxNetworks bounds what one Share names. As many IPv6 networks, which take ten instructions each, fit beside all probes even where
// net.core.optmem_max is 20 KiB, as older kernels have it.
const MaxNetworks = 128

const (
	maxShareText = 16 << 10 // more than MaxNetworks of the longest networks
	maxPercent   = 12       // characters of a percentage
	stickyMark   = "@source"
)

// ParseShare reads terms joined by "+": a percentage of the connections ("5%", "0.5%"), or of the clients by their address
// ("5%@source"); a network or an address whose clients always go to the candidate ("10.1.0.0/16", "2001:db8::7"); with "!"
// one whose clients never do. At most one percentage. Each error is a sentence.
func ParseShare(text string) (Share, error) {
	var s Share
	if len(text) > maxShareText {
		return s, fmt.Errorf("cannot read a share of %d bytes: more than %d are not looked at; name fewer or wider networks", len(text), maxShareText)
	}
	percents := 0
	for term := range strings.SplitSeq(text, "+") {
		percent, err := s.add(strings.TrimSpace(term))
		if percent {
			percents++
		}
		if err != nil {
			return Share{}, fmt.Errorf("cannot read the share %s: %w", quoteShort(text), err)
		}
	}
	err := s.check()
	if percents > 1 {
		err = errors.New("it has two percentages; write one")
	}
	if err != nil {
		return Share{}, fmt.Errorf("cannot read the share %s: %w", quoteShort(text), err)
	}
	return s, nil
}

// quoteShort quotes what came from outside, cut where it would fill a log line.
func quoteShort(text string) string {
	n := min(len(text), 80)
	for len(strconv.Quote(text[:n])) > 160 {
		n /= 2
	}
	if n < len(text) {
		return strconv.Quote(text[:n]) + "…"
	}
	return strconv.Quote(text)
}

// add reads one term; percent tells whether it was a percentage.
func (s *Share) add(term string) (percent bool, err error) {
	network, never := strings.CutPrefix(term, "!")
	number, sticky := strings.CutSuffix(term, stickyMark)
	number, percent = strings.CutSuffix(number, "%")
	switch {
	case term == "":
		return false, errors.New("a term is empty; write a percentage such as 5%, or a network such as 10.1.0.0/16")
	case percent:
		s.Sticky = sticky
		s.Portion, err = parsePercent(number)
		return true, err
	case sticky:
		return false, fmt.Errorf("%s: %s belongs behind a percentage, as in 5%%%s", quoteShort(term), stickyMark, stickyMark)
	}
	p, err := parseNetwork(strings.TrimSpace(network))
	switch {
	case err != nil:
		return false, err
	case never:
		s.Never = append(s.Never, p)
	default:
		s.Always = append(s.Always, p)
	}
	return false, nil
}

// parsePercent takes digits with one dot, no exponents and no signs.
func parsePercent(text string) (float64, error) {
	n, err := strconv.ParseFloat(text, 64)
	switch {
	case err != nil || len(text) > maxPercent || strings.Trim(text, "0123456789.") != "":
		return 0, fmt.Errorf("%s is no percentage; write at most %d digits, as in 5%% or 0.5%%", quoteShort(text+"%"), maxPercent)
	case n > 100:
		return 0, fmt.Errorf("%q is more than everything; at most 100%%", text+"%")
	}
	return n / 100, nil
}

// parseNetwork reads a network, or an address, which is one of a single client.
func parseNetwork(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		a, err := netip.ParseAddr(text)
		switch {
		case err != nil:
			return netip.Prefix{}, fmt.Errorf("%s is neither a percentage nor an address; write 5%%, 10.1.0.0/16 or 192.0.2.7", quoteShort(text))
		case a.Zone() != "":
			return netip.Prefix{}, fmt.Errorf("%q has a zone, which packets do not show; leave it out", text)
		}
		a = a.Unmap()
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%s is not a network; write an address and the number of its leading bits, as in 10.1.0.0/16", quoteShort(text))
	}
	if p, err = unmapNetwork(p); err == nil && p != p.Masked() {
		err = fmt.Errorf("%q has bits set beyond its prefix; write %s", text, p.Masked())
	}
	return p, err
}

// unmapNetwork turns ::ffff:a.b.c.d/n into the IPv4 network that packets show.
func unmapNetwork(p netip.Prefix) (netip.Prefix, error) {
	switch {
	case !p.Addr().Is4In6():
		return p, nil
	case p.Bits() < 96:
		return netip.Prefix{}, fmt.Errorf("%q is half an IPv4 network; write 0.0.0.0/0 for all of IPv4", p.String())
	}
	return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96), nil
}

// check refuses what no program can be made of, or what would give the candidate nothing.
func (s Share) check() error {
	for _, list := range [][]netip.Prefix{s.Always, s.Never} {
		for _, p := range list {
			if !p.IsValid() || p.Addr().Is4In6() {
				return fmt.Errorf("%q is no network that a packet can show; write IPv4 as IPv4", p.String())
			}
		}
	}
	switch n := len(s.Always) + len(s.Never); {
	case math.IsNaN(s.Portion) || s.Portion < 0 || s.Portion > 1:
		return fmt.Errorf("the portion %v is not between 0 and 1", s.Portion)
	case n > MaxNetworks:
		return fmt.Errorf("%d networks do not fit into a socket's program; name at most %d, or wider ones", n, MaxNetworks)
	case s.threshold() == 0 && s.Portion > 0:
		return errors.New("less than one connection in 4 billion is nothing; give more")
	case s.threshold() == 0 && len(s.Always) == 0:
		return errors.New("it gives the candidate nothing; add a percentage, or a network whose clients shall go there")
	}
	return nil
}

// threshold is the portion out of 1<<32.
func (s Share) threshold() uint64 { return uint64(math.Round(s.Portion * (1 << 32))) }

// String is the text that ParseShare reads.
func (s Share) String() string {
	var terms []string
	if s.Portion > 0 || len(s.Always) == 0 {
		percent := strconv.FormatFloat(math.Round(s.Portion*1e14)/1e12, 'f', -1, 64) + "%"
		if s.Sticky {
			percent += stickyMark
		}
		terms = append(terms, percent)
	}
	for _, p := range s.Always {
		terms = append(terms, networkText(p))
	}
	for _, p := range s.Never {
		terms = append(terms, "!"+networkText(p))
	}
	return strings.Join(terms, "+")
}

func networkText(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}
