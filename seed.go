package isekai

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/isekai-gateway/isekai/pipeline"
	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/routing"
	"github.com/isekai-gateway/isekai/store"
)

// readSeed reads and checks a file of routes.
func readSeed(name string, plugins []string, policy *proxy.Policy, methods []string) ([]*store.Route, error) {
	if name == "" {
		return nil, nil
	}
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("reading seed file: %w", err)
	}
	var items []json.RawMessage
	if err := decodeStrict(content, &items); err != nil {
		return nil, fmt.Errorf("seed file %s: must be a JSON array of routes: %w", name, err)
	}
	rows := make([]*store.Route, len(items))
	for i, item := range items {
		row, err := seedRoute(item, plugins, policy, methods)
		if err != nil {
			return nil, fmt.Errorf("seed file %s: route %d: %w", name, i+1, err)
		}
		rows[i] = row
	}
	return rows, nil
}

func seedRoute(item json.RawMessage, plugins []string, policy *proxy.Policy, methods []string) (*store.Route, error) {
	row := store.NewRoute("", "")
	if err := decodeStrict(item, row); err != nil {
		return nil, err
	}
	// A file made from the API's answers holds what only the store can give.
	row.ID, row.Revision, row.CreatedAt, row.UpdatedAt = 0, 0, time.Time{}, time.Time{}
	if err := pipeline.Check(row, plugins, policy, methods); err != nil {
		return nil, err
	}
	compiled, err := routing.Compile(row)
	if err != nil {
		return nil, err
	}
	row = compiled.Normalized()
	row.MatchKey, err = routing.MatchKey(row)
	return row, err
}

// decodeStrict decodes one JSON value without unknown fields.
func decodeStrict(content []byte, to any) error {
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(to); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("there is something after the end")
	}
	return nil
}
