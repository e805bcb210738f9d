package pipeline

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/isekai-gateway/isekai/proxy"
	"github.com/isekai-gateway/isekai/store"
)

// Bounds of nesting: of modules in each other, and of what is looked into.
const (
	maxModuleDepth = 16
	maxValueDepth  = 64
)

// inspector holds one plugin against the allow-list, without setting it up. It
// reads the JSON into the modules' own types, as Caddy will, and follows the
// fields in which these keep further modules. So it sees what Caddy would load
// and nothing else, however the JSON spells it.
type inspector struct {
	allowed allowList
	policy  *proxy.Policy
	errs    store.FieldErrors

	// Where a module is named by a key of its object, the keys in use, and whether
	// all of it was looked at.
	named map[string]bool
	keys  map[string]bool
	whole bool
}

// checkPlugins checks which modules the plugins name, at any depth, and refuses
// placeholders that reach outside the request, and settings of theirs that reach
// further than the route may.
func checkPlugins(plugins []json.RawMessage, names []string, policy *proxy.Policy) error {
	if len(plugins) == 0 {
		return nil
	}
	allowed := newAllowList(names)
	var errs store.FieldErrors
	for n, raw := range plugins {
		i := &inspector{allowed: allowed, policy: policy, named: make(map[string]bool), keys: map[string]bool{"handler": true}}
		i.plugin(fmt.Sprintf("plugins[%d]", n), raw)
		errs = append(errs, i.errs...)
	}
	return errs.Err()
}

func (i *inspector) plugin(field string, raw json.RawMessage) {
	// Reading a module's settings may be foreign code.
	defer func() {
		if p := recover(); p != nil {
			i.errs.Add(field, fmt.Sprintf("module panicked while its settings were read: %v", p))
		}
	}()
	var document any
	if err := json.Unmarshal(raw, &document); err != nil {
		i.errs.Add(field, "is not valid JSON")
		return
	}
	if name, ok := repeatedName(raw); ok {
		// The last one counts, for us and for Caddy, but not for everybody.
		i.errs.Add(field, fmt.Sprintf("has the name %q more than once in one object", name))
		return
	}
	if _, ok := document.(map[string]any); !ok {
		i.errs.Add(field, `must be an object with the key "handler"`)
		return
	}
	i.inline(field, raw, handlers, "handler", 1)
	i.whole = len(i.errs) == 0
	i.texts(field, document)
}

// inline looks at a module that is named by a key of its own object, which it
// takes apart as Caddy does.
func (i *inspector) inline(field string, raw json.RawMessage, namespace, key string, depth int) {
	i.named[field+"."+key], i.keys[key] = true, true
	var object map[string]any
	if err := json.Unmarshal(raw, &object); err != nil || object == nil {
		i.errs.Add(field, fmt.Sprintf("must be an object with the key %q", key))
		return
	}
	name, ok := object[key].(string)
	if !ok || name == "" {
		i.errs.Add(field+"."+key, fmt.Sprintf("is required: the name of a module in %s", namespace))
		return
	}
	if !i.allowed.ids[namespace+"."+name] {
		i.errs.Add(field+"."+key, i.allowed.refuse(namespace, name))
		return
	}
	delete(object, key)
	settings, err := json.Marshal(object)
	if err != nil {
		i.errs.Add(field, "is not valid JSON")
		return
	}
	i.module(field, namespace+"."+name, settings, depth)
}

// byName looks at modules that are named by the keys of an object.
func (i *inspector) byName(field string, modules reflect.Value, namespace string, depth int) {
	for _, key := range sortedKeys(modules) {
		name := key.String()
		if !i.allowed.ids[namespace+"."+name] {
			i.errs.Add(field+"."+name, i.allowed.refuse(namespace, name))
			continue
		}
		i.module(field+"."+name, namespace+"."+name, modules.MapIndex(key).Bytes(), depth)
	}
}

// module reads a module's settings and looks for further modules in them.
func (i *inspector) module(field, id string, settings json.RawMessage, depth int) {
	if depth > maxModuleDepth {
		i.errs.Add(field, fmt.Sprintf("is nested in more than %d modules", maxModuleDepth))
		return
	}
	info, err := caddy.GetModule(id)
	if err != nil {
		i.errs.Add(field, fmt.Sprintf("module %q is not part of this binary", id))
		return
	}
	instance := info.New()
	if kind := reflect.TypeOf(instance).Kind(); kind != reflect.Pointer {
		instance = reflect.New(reflect.TypeOf(instance)).Interface().(caddy.Module)
	}
	if err := caddy.StrictUnmarshalJSON(settings, &instance); err != nil {
		i.errs.Add(field, fmt.Sprintf("has settings that %s does not take: %s", id, strings.TrimPrefix(err.Error(), "json: ")))
		return
	}
	if instance == nil {
		i.errs.Add(field, "must not be null")
		return
	}
	i.value(field, reflect.ValueOf(instance), depth, 0)
}

// value follows a module's settings to the fields that hold further modules.
func (i *inspector) value(field string, v reflect.Value, depth, level int) {
	if level > maxValueDepth {
		i.errs.Add(field, "is nested too deep to be checked")
		return
	}
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			i.value(field, v.Elem(), depth, level+1)
		}
	case reflect.Struct:
		if !v.CanInterface() {
			return
		}
		if !v.CanAddr() {
			copied := reflect.New(v.Type()).Elem()
			copied.Set(v)
			v = copied
		}
		i.settings(field, v.Addr().Interface())
		for n := range v.NumField() {
			i.field(field, v.Type().Field(n), v.Field(n), depth, level+1)
		}
	case reflect.Slice, reflect.Array:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			return
		}
		for n := range v.Len() {
			i.value(fmt.Sprintf("%s[%d]", field, n), v.Index(n), depth, level+1)
		}
	case reflect.Map:
		for _, key := range sortedKeys(v) {
			i.value(fmt.Sprintf("%s.%v", field, key), v.MapIndex(key), depth, level+1)
		}
	}
}

// field looks at one field of a struct, which may be tagged to hold modules.
func (i *inspector) field(parent string, f reflect.StructField, v reflect.Value, depth, level int) {
	if !f.IsExported() && !f.Anonymous {
		return
	}
	path := parent
	name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
	switch {
	case name == "-" && f.Tag.Get("caddy") == "":
		return // comes from nothing that the route says
	case name == "-", name == "" && f.Anonymous:
		// A type that reads its own JSON stands for the field that it fills.
	case name == "":
		path += "." + f.Name
	default:
		path += "." + name
	}
	tag, err := caddy.ParseStructTag(f.Tag.Get("caddy"))
	if err != nil || f.Tag.Get("caddy") != "" && tag["namespace"] == "" {
		if !v.IsZero() {
			i.errs.Add(path, "holds modules in a form that can't be checked")
		}
		return
	}
	if tag["namespace"] == "" {
		i.value(path, v, depth, level)
		return
	}
	i.modules(path, v, tag["namespace"], tag["inline_key"], depth+1)
}

var rawType = reflect.TypeFor[json.RawMessage]()

// modules looks at the value of a field that holds modules, in all the forms
// that caddy.Context.LoadModule knows.
func (i *inspector) modules(field string, v reflect.Value, namespace, key string, depth int) {
	switch t := v.Type(); {
	case v.IsZero():
	case t == rawType && key != "":
		i.inline(field, v.Bytes(), namespace, key, depth)
	case t.Kind() == reflect.Slice && t != rawType:
		for n := range v.Len() {
			i.modules(fmt.Sprintf("%s[%d]", field, n), v.Index(n), namespace, key, depth)
		}
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && t.Elem() == rawType && key == "":
		i.byName(field, v, namespace, depth)
	case t.Kind() == reflect.Map && t.Key().Kind() == reflect.String && t.Elem() == rawType:
		for _, k := range sortedKeys(v) {
			i.inline(field+"."+k.String(), v.MapIndex(k).Bytes(), namespace, key, depth)
		}
	default:
		i.errs.Add(field, "holds modules in a form that can't be checked")
	}
}

func sortedKeys(m reflect.Value) []reflect.Value {
	return slices.SortedFunc(slices.Values(m.MapKeys()), func(a, b reflect.Value) int {
		return strings.Compare(fmt.Sprint(a), fmt.Sprint(b))
	})
}

// texts looks at the document itself: for placeholders, and for objects that
// name a module where none was found, which a module might load in a way of its
// own.
func (i *inspector) texts(field string, value any) {
	switch v := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			path := field + "." + key
			if _, isText := v[key].(string); isText && i.whole && i.keys[strings.ToLower(key)] && !i.named[path] {
				i.errs.Add(path, "names a module where none can stand")
			}
			checkText(&i.errs, path, key)
			i.texts(path, v[key])
		}
	case []any:
		for n, item := range v {
			i.texts(fmt.Sprintf("%s[%d]", field, n), item)
		}
	case string:
		checkText(&i.errs, field, v)
	}
}
