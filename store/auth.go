package store

// Auth says who may use a route.
type Auth struct {
	// The methods by which a request can say who makes it, of which one must do:
	// `api_key`, a key of a consumer; `jwt`, a JSON Web Token of a configured issuer;
	// `basic`, name and password of a configured account; `mtls`, a client certificate
	// that the site has verified. They are tried in this order, and the first valid
	// credentials count. All but api_key need a setting of the isekai app. Required.
	Any []string `json:"any"`

	// The groups of which a caller must be in one; others are answered 403. At most
	// 100, of up to 200 bytes each. Default: none, everybody who is known may go on.
	Groups []string `json:"groups,omitempty"`

	// Whether requests without any credentials may go on, too. Wrong ones are refused
	// in any case. Can't be had with groups. Default: false.
	Anonymous bool `json:"anonymous,omitempty"`
}
