package api

import "github.com/isekai-gateway/isekai/auth"

var authFields = map[string]field{
	"any": {doc: "The methods by which a request can say who makes it, of which one must do: api_key, a key of a consumer; jwt, a JSON Web Token; basic, name and password; mtls, a client certificate that the site has verified. They are tried in this order. All but api_key must be set up in Caddy's configuration.",
		example: []string{auth.MethodAPIKey, auth.MethodJWT}, required: true, maxLength: 16, maxCount: len(auth.Methods())},
	"groups": {doc: "The groups of which a caller must be in one; others are answered 403. Default: none, whoever is known may go on.",
		example: []string{"mobile"}, maxLength: auth.MaxGroup, maxCount: auth.MaxGroups},
	"anonymous": {doc: "Whether requests without any credentials may go on, too. Wrong ones are refused in any case. Can't be had with groups. Default: false.", byDefault: false},
}
