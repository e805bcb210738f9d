package routing

// checkDecoded looks at a segment the way the most generous server might, with
// percent-encoding undone as often as there is some, and refuses it if it then
// holds what a path must not hold. The triplets of seg are valid.
func checkDecoded(seg string) error {
	var chars [256]byte
	var nested [256]bool // whether the byte itself came out of a triplet
	buf, inner := chars[:0], nested[:0]
	for i := range len(seg) {
		buf, inner = append(buf, seg[i]), append(inner, false)
		// Undoing a triplet as soon as it is complete, innermost first, takes
		// linear time for any depth of encoding.
		for n := len(buf); n >= 3 && buf[n-3] == '%'; n = len(buf) {
			v, ok := triplet(string(buf[n-3:]))
			if !ok {
				break
			}
			again := inner[n-3] || inner[n-2] || inner[n-1]
			if again && isDangerous(v) {
				return errMultiEncode
			}
			buf, inner = append(buf[:n-3], v), append(inner[:n-3], true)
		}
	}
	if hasOverlong(buf) {
		return errOverlong
	}
	for start, i := 0, 0; i <= len(buf); i++ {
		if i == len(buf) || buf[i] == '/' {
			if isDotSegment(buf[start:i]) {
				return errDotSegment
			}
			start = i + 1
		}
	}
	return nil
}

// isDangerous reports whether a byte that is encoded twice or more could be used
// to leave a path or to end it.
func isDangerous(c byte) bool {
	return c == '.' || c == '/' || c == '\\' || class[c]&control != 0
}

// hasOverlong reports whether b holds an ASCII character written as a longer UTF-8
// sequence than its one byte. Lenient decoders don't check the marker bits of
// continuation bytes ("%E0%40%AE" is a dot to them), so neither does this. The
// bytes C0 and C1 have no other use in UTF-8.
func hasOverlong(b []byte) bool {
	for i, c := range b {
		more := 0
		switch c {
		case 0xC0, 0xC1:
			return true
		case 0xE0:
			more = 2
		case 0xF0:
			more = 3
		case 0xF8:
			more = 4
		case 0xFC:
			more = 5
		}
		if more == 0 || i+more >= len(b) {
			continue
		}
		code := 0
		for _, c := range b[i+1 : i+1+more] {
			code = code<<6 | int(c&0x3F)
		}
		if code < 0x80 {
			return true
		}
	}
	return false
}
