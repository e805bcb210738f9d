package ratelimit

// ZoneReferences returns how many handlers hold the zone's counters.
func ZoneReferences(name string) int {
	n, _ := zones.References(name)
	return n
}
