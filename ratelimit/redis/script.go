package redis

import "github.com/redis/rueidis"

// takeScript charges costs to counters if all of them fit, and returns for each the
// time, what there was before in the previous and the current window, and whether
// the cost fits. KEYS are the counters; ARGV begins with 1 to charge or 0 to ask,
// followed by window, limit and cost of each. Numbers are whole and below 2^53 but
// for products of huge limits and windows, where the division may be off by one unit.
const takeScript = `
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local charge = ARGV[1] == '1'
local counters, reply, allowed = {}, {}, true
for i, key in ipairs(KEYS) do
	local window, limit, cost = tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i]), tonumber(ARGV[3*i+1])
	local found = redis.call('HMGET', key, 's', 'c', 'p')
	local start, current, previous = tonumber(found[1] or 0), tonumber(found[2] or 0), tonumber(found[3] or 0)
	local time = now
	if start > time and start - time <= window then
		time = start -- the clock went back: time stands still
	end
	local begun = time - time % window
	if start == begun - window then
		previous, current = current, 0
	elseif start ~= begun then
		previous, current = 0, 0
	end
	local weighted = previous * (window - time % window)
	local rest = weighted % window
	weighted = (weighted - rest) / window
	if rest > 0 then
		weighted = weighted + 1 -- when in doubt, a unit still counts
	end
	local fits = current + weighted + cost <= limit
	allowed = allowed and fits
	counters[i] = {key, begun, current + cost, previous, window, cost}
	reply[i] = {time, previous, current, fits and 1 or 0}
end
if allowed and charge then
	for _, c in ipairs(counters) do
		if c[6] > 0 then
			redis.call('HSET', c[1], 's', string.format('%.0f', c[2]), 'c', string.format('%.0f', c[3]), 'p', string.format('%.0f', c[4]))
			redis.call('PEXPIRE', c[1], string.format('%.0f', 2 * c[5]))
		end
	end
end
return reply
`

// refundScript takes charges back that another part of a call made in vain. ARGV has
// window, the time of the charge and cost of each of KEYS.
const refundScript = `
for i, key in ipairs(KEYS) do
	local window, time, cost = tonumber(ARGV[3*i-2]), tonumber(ARGV[3*i-1]), tonumber(ARGV[3*i])
	local found = redis.call('HMGET', key, 's', 'c', 'p')
	local start, charged = tonumber(found[1] or 0), time - time % window
	if start == charged then
		redis.call('HSET', key, 'c', string.format('%.0f', math.max(tonumber(found[2]) - cost, 0)))
	elseif start == charged + window then
		redis.call('HSET', key, 'p', string.format('%.0f', math.max(tonumber(found[3]) - cost, 0)))
	end
end
return 1
`

var (
	takeLua   = rueidis.NewLuaScript(takeScript)
	refundLua = rueidis.NewLuaScript(refundScript)
)
