package cluster

import _ "embed"

//go:generate go test . -run TestSchemaIsOfTheTypes -update

//go:embed schema.json
var schema []byte

// Schema is the JSON Schema (draft 2020-12) of the cluster file, for editors. It
// says what types and comments say; what depends on several fields only Parse
// knows. It is generated from the types by this package's tests.
func Schema() []byte { return schema }
