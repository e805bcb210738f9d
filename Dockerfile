# The gateway, built by `make build` and run without privileges.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
# The folder .git is not sent to the build, so the version comes from outside.
ARG VERSION=unknown
RUN make build VERSION="$VERSION" && mkdir -p /out/data /out/config

# A base with a wget, for the health check.
FROM alpine:3
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/bin/caddy /usr/bin/caddy
COPY --from=build /src/Caddyfile.example /etc/isekai/Caddyfile
COPY --from=build /src/routes.example.json /etc/isekai/routes.example.json
# What must outlast the container: certificates, and the SQLite database of whoever
# names no other.
COPY --from=build --chown=10001:10001 /out/data /data
COPY --from=build --chown=10001:10001 /out/config /config
ENV XDG_DATA_HOME=/data \
    XDG_CONFIG_HOME=/config \
    ISEKAI_DATABASE_URL=sqlite:///data/isekai.db
WORKDIR /etc/isekai
VOLUME ["/data", "/config"]
USER 10001:10001
# HTTP, HTTPS, and HTTP/3.
EXPOSE 8080 8443 8443/udp
# Through the site, as clients come. The admin endpoint is on localhost in here and
# is not published.
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s --retries=3 \
    CMD wget -q -O /dev/null "http://127.0.0.1:${ISEKAI_HTTP_PORT:-8080}/healthz" || exit 1
ENTRYPOINT ["caddy"]
CMD ["run", "--config", "/etc/isekai/Caddyfile", "--adapter", "caddyfile"]
