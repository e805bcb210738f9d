package auth

import (
	"context"
	"errors"
	"net/textproto"
	"slices"

	"github.com/golang-jwt/jwt/v5"
)

// maxToken bounds a token in bytes, before anything of it is read.
const maxToken = 8 << 10

// parser takes tokens apart. Claims are checked by the issuer's own rules after the
// signature.
var parser = jwt.NewParser(
	jwt.WithValidMethods(slices.Concat(asymmetric, symmetric)),
	jwt.WithoutClaimsValidation(),
	jwt.WithStrictDecoding(),
	jwt.WithJSONNumber(),
)

// Why a token is refused, beside what the parser says.
var (
	errTokenSize     = errors.New("it is too long")
	errUnknownIssuer = errors.New("no configured issuer has made it")
	errAlgorithm     = errors.New("the issuer does not use this algorithm")
	errCritical      = errors.New("it has extensions that must be understood")
	errRequiredClaim = errors.New("a required claim is missing or has another value")
	errNoID          = errors.New("it has no claim for the id")
)

// token checks a JSON Web Token in compact form.
func (v *Verifier) token(ctx context.Context, text string) (*Identity, error) {
	id, err := v.readToken(ctx, text)
	switch {
	case err == nil:
		return id, nil
	case errors.Is(err, ErrUnavailable):
		v.unavailable(MethodJWT, err)
		return nil, ErrUnavailable
	}
	return nil, v.invalid(MethodJWT, reason(err))
}

func (v *Verifier) readToken(ctx context.Context, text string) (*Identity, error) {
	if len(text) > maxToken {
		return nil, errTokenSize
	}
	var by *issuer
	claims := make(jwt.MapClaims)
	token, err := parser.ParseWithClaims(text, claims, func(token *jwt.Token) (any, error) {
		// Nothing in here has been verified yet: it only selects what to verify with.
		name, _ := claims["iss"].(string)
		if by = v.issuers[name]; by == nil {
			return nil, errUnknownIssuer
		}
		if _, ok := token.Header["crit"]; ok {
			return nil, errCritical // RFC 7515, 4.1.11
		}
		if !slices.Contains(by.algorithms, token.Method.Alg()) {
			return nil, errAlgorithm
		}
		return by.keys.key(ctx, token)
	})
	if err != nil {
		return nil, err
	}
	if err := by.validator.Validate(claims); err != nil {
		return nil, err
	}
	for name, value := range by.config.RequiredClaims {
		if !hasClaim(claims, name, value) {
			return nil, errRequiredClaim
		}
	}
	return by.identity(token, claims)
}

// identity returns whom a verified token names.
func (i *issuer) identity(token *jwt.Token, claims jwt.MapClaims) (*Identity, error) {
	claim := i.config.IDClaim
	if claim == "" {
		claim = "sub"
	}
	id := claimText(findClaim(claims, claim))
	if id == "" {
		return nil, errNoID
	}
	groups := i.config.GroupsClaim
	if groups == "" {
		groups = "groups"
	}
	kid, _ := token.Header["kid"].(string)
	who := &Identity{
		Method: MethodJWT, ID: id, Name: id, KeyID: kid, Issuer: i.name,
		Groups:   claimWords(findClaim(claims, groups)),
		Metadata: make(map[string]string, len(claims)),
	}
	for name, value := range claims {
		if text := claimText(value); text != "" {
			who.Metadata["claim_"+name] = text
		}
	}
	if len(i.config.ClaimHeaders) > 0 {
		who.headers = make(map[string]string, len(i.config.ClaimHeaders))
		for header, name := range i.config.ClaimHeaders {
			if text := claimText(findClaim(claims, name)); text != "" {
				who.headers[textproto.CanonicalMIMEHeaderKey(header)] = text
			}
		}
	}
	return who, nil
}

// reasons are the errors whose text is logged. Others can hold parts of the token.
var reasons = []error{
	errTokenSize, errUnknownIssuer, errAlgorithm, errCritical, errRequiredClaim, errNoID, errUnknownKey,
	jwt.ErrTokenExpired, jwt.ErrTokenNotValidYet, jwt.ErrTokenInvalidAudience, jwt.ErrTokenInvalidIssuer,
	jwt.ErrTokenRequiredClaimMissing, jwt.ErrTokenSignatureInvalid, jwt.ErrTokenMalformed, jwt.ErrTokenInvalidClaims,
}

func reason(err error) string {
	for _, known := range reasons {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return "it can't be verified"
}
