// Package gateway is what turns JSON over HTTP into calls, below it, and what
// describes that to programs. All of it is generated from gateway.yaml and the
// .proto files by make proto; apart from the protocol's own packages, so that
// clients do not carry it.
package gateway

import _ "embed" // For the description.

// OpenAPI describes every route, as OpenAPI 2 in JSON.
//
//go:embed openapi.json
var OpenAPI []byte
