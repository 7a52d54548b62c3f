"""Code that `make proto` generates from `proto/keyvalue.proto`. A test fails when it is stale."""
