package netprobe

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/hotswap-init/entrypoint/internal/probe"
)

// serving is the one value of HealthCheckResponse.ServingStatus that is a yes.
const serving = 1

// statusNames are the values of HealthCheckResponse.ServingStatus.
var statusNames = []string{"UNKNOWN", "SERVING", "NOT_SERVING", "SERVICE_UNKNOWN"}

// Status codes of gRPC that have a sentence of their own.
const (
	grpcNotFound      = 5
	grpcUnimplemented = 12
)

// askHealth makes one call of grpc.health.v1.Health/Check.
func askHealth(ctx context.Context, transport *http.Transport, r *probe.Request) error {
	u, err := url.Parse(r.URL)
	if err != nil {
		return said("cannot be asked: it is no URL")
	}
	service := strings.Trim(u.Path, "/")
	u.Path, u.RawPath = "/grpc.health.v1.Health/Check", ""
	call := *r
	call.URL = u.String()
	q, err := newRequest(ctx, http.MethodPost, &call, bytes.NewReader(frame(healthRequest(service))))
	if err != nil {
		return err
	}
	q.Header.Set("Content-Type", "application/grpc")
	q.Header.Set("TE", "trailers")
	answer, err := transport.RoundTrip(q)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK || !strings.HasPrefix(answer.Header.Get("Content-Type"), "application/grpc") {
		return said("answered %d and does not speak gRPC", answer.StatusCode)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxRead))
	if err != nil {
		return said("broke off: %v", explain(ctx, err, r))
	}
	return verdict(answer, service, body)
}

// verdict reads the status of the call, which is in the trailer, or in the header if there is nothing else, and then the answer.
func verdict(answer *http.Response, service string, body []byte) error {
	h := answer.Trailer
	if h.Get("Grpc-Status") == "" {
		h = answer.Header
	}
	code, err := strconv.Atoi(h.Get("Grpc-Status"))
	switch message := bounded(h.Get("Grpc-Message")); {
	case err != nil:
		return said("closed the connection without a whole answer")
	case code == grpcNotFound:
		return said("does not know the service %q", service)
	case code == grpcUnimplemented:
		return said("does not implement the health protocol of gRPC")
	case code != 0:
		return said("answered with gRPC status %d: %s", code, message)
	}
	status, err := healthResponse(body)
	switch {
	case err != nil:
		return said("sent an answer that cannot be read: %v", err)
	case status == serving:
		return nil
	case status < uint64(len(statusNames)):
		return said("answered %s", statusNames[status])
	}
	return said("answered with the unknown health status %d", status)
}

// bounded keeps a message of the app short.
func bounded(text string) string {
	if plain, err := url.PathUnescape(text); err == nil {
		text = plain
	}
	return text[:min(len(text), 200)]
}

// frame puts the prefix of gRPC before a message: not compressed, and its length.
func frame(message []byte) []byte {
	b := binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message)))
	return append(b, message...)
}

// Wire types of protocol buffers.
const (
	wireVarint = 0
	wireFixed8 = 1
	wireBytes  = 2
	wireFixed4 = 5
)

// healthRequest encodes HealthCheckRequest: field 1, service, a string.
func healthRequest(service string) []byte {
	if service == "" {
		return nil
	}
	b := binary.AppendUvarint([]byte{1<<3 | wireBytes}, uint64(len(service)))
	return append(b, service...)
}

var errShort = errors.New("it is cut short")

// healthResponse decodes the frame with HealthCheckResponse: field 1, status, a number; what is missing is 0. Fields of later
// versions are passed over.
func healthResponse(body []byte) (status uint64, err error) {
	if len(body) < 5 {
		return 0, errShort
	}
	if body[0] != 0 {
		return 0, errors.New("it is compressed, though we did not ask for that")
	}
	size := binary.BigEndian.Uint32(body[1:])
	body = body[5:]
	if uint64(size) > uint64(len(body)) {
		return 0, errShort
	}
	for body = body[:size]; len(body) > 0; {
		var key, value uint64
		if key, body, err = uvarint(body); err != nil {
			return 0, err
		}
		if value, body, err = field(key&7, body); err != nil {
			return 0, err
		}
		if key == 1<<3|wireVarint {
			status = value
		}
	}
	return status, nil
}

// field reads one field of a wire type: its value if that is a number of variable length, and what follows.
func field(kind uint64, b []byte) (value uint64, rest []byte, err error) {
	skip := uint64(0)
	switch kind {
	case wireVarint:
		return uvarint(b)
	case wireFixed8:
		skip = 8
	case wireFixed4:
		skip = 4
	case wireBytes:
		if skip, b, err = uvarint(b); err != nil {
			return 0, nil, err
		}
	default:
		return 0, nil, errors.New("it is not a message of protocol buffers")
	}
	if skip > uint64(len(b)) {
		return 0, nil, errShort
	}
	return 0, b[skip:], nil
}

func uvarint(b []byte) (uint64, []byte, error) {
	v, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, nil, errShort
	}
	return v, b[n:], nil
}
