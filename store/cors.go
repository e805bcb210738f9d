package store

// CORS says which pages of other origins may use a resource. The zero value lets
// every page read it, without credentials.
type CORS struct {
	// The origins whose pages may ask, each one of
	//
	//   - an origin, like `https://app.example.com` or `http://localhost:3000`;
	//     upper case, default ports and international names are normalized;
	//   - an origin whose host is a wildcard, like `https://*.example.com`, for one
	//     or more labels in place of the `*`. It does not match
	//     `https://example.com`, and scheme and port must be equal;
	//   - `~` and a regular expression (RE2) for the whole origin, like
	//     `~https://pr-[0-9]+\.example\.com`. Browsers send origins in lower case
	//     and without a default port;
	//   - `null`, for sandboxed frames and local files. Any page can make itself
	//     that origin, so it can't be had with credentials;
	//   - `*` alone, for every origin. It can't be had with credentials.
	//
	// At most 100. Default: `*`; required with credentials.
	Origins []string `json:"origins,omitempty"`

	// The methods that pages may use, in any case, or `*` alone for every method,
	// which can't be had with credentials. CONNECT, TRACE and TRACK are closed to
	// pages. Browsers never ask about GET, HEAD and POST and use them in any case.
	// At most 100. Default: GET, HEAD and POST, and on a route its own methods.
	Methods []string `json:"methods,omitempty"`

	// The request header fields that pages may set beside the harmless ones that
	// Fetch always lets them set, e.g. `Authorization`, or `Content-Type` for
	// JSON. `*` alone is for every field, Authorization too: the answer repeats
	// what was asked for. It can't be had with credentials. At most 100.
	// Default: none.
	Headers []string `json:"headers,omitempty"`

	// The response header fields that pages may read beside the few that Fetch
	// always lets them read, or `*` alone for every field, which can't be had with
	// credentials. At most 100. Default: none.
	ExposeHeaders []string `json:"expose_headers,omitempty"`

	// Whether pages may send cookies, HTTP authentication and client certificates
	// and read the answer. Tokens that a page sets itself, in Authorization, don't
	// need it. Default: false.
	Credentials bool `json:"credentials,omitempty"`

	// How many seconds browsers may keep the answer to a preflight, up to 86400;
	// -1 tells them not to. Default: 0, which leaves it to them (5 seconds).
	MaxAge int `json:"max_age,omitempty"`

	// Whether pages from the Internet may reach this server in a private network,
	// for browsers that ask (https://wicg.github.io/private-network-access/).
	// Default: false.
	PrivateNetwork bool `json:"private_network,omitempty"`
}
