# Two images from one build:
#
#   docker build .                    the default, for GitLab CI and other systems
#                                     that start the image and feed a script to it
#   docker build --target minimal .   the binary and nothing else, for
#                                     "docker run" and Kubernetes Jobs
#
# Base images carry a version and no digest: their rebuilds are security fixes of
# the same version, and each release records what it was built from in its provenance.

FROM --platform=$BUILDPLATFORM golang:1.26-alpine AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY cmd cmd
COPY internal internal
ARG TARGETOS TARGETARCH
# What "sluice version" says; without it the image calls itself "devel".
ARG VERSION=
# Cross-compiled on the build machine: emulation would take ten times as long.
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH go build -trimpath -buildvcs=false \
    -ldflags="-s -w -X github.com/sluicerun/sluice/internal/cli.version=$VERSION" \
    -o /out/sluice ./cmd/sluice

FROM scratch AS minimal
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/sluice /usr/local/bin/sluice
# A number, so that "runAsNonRoot" can be checked without a passwd file.
USER 65532:65532
# Exec form: sluice is process 1 and gets the signals itself.
ENTRYPOINT ["/usr/local/bin/sluice"]
CMD ["--help"]

FROM alpine:3.23 AS ci
# What GitLab's runners use is here already: sh, grep, cat, sed, awk and id are
# BusyBox's. coreutils for what jobs commonly do besides; no git, no kubectl:
# sluice needs neither.
RUN apk add --no-cache ca-certificates coreutils \
 && adduser -D -u 65532 -h /home/sluice sluice \
 # Some clusters run images as any user, always of group 0.
 && chgrp 0 /home/sluice && chmod 0775 /home/sluice
COPY --from=build /out/sluice /usr/local/bin/sluice
ENV HOME=/home/sluice
WORKDIR /home/sluice
USER 65532:65532
# No ENTRYPOINT: GitLab starts the image with a shell of its own choice.
CMD ["sluice", "--help"]
