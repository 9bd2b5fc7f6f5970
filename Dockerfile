# The five programs in one small image. Needs no BuildKit; where these base images cannot be
# pulled, scripts/base-images makes them.

# What decides about dependencies, and nothing else: every manifest, and an empty program in place
# of every target. Its content is the key under which the next stage's compiled crates are cached.
FROM rust:1-slim-bookworm AS manifests
WORKDIR /src
COPY . .
RUN echo '//! Stands in.' > /lib.rs && echo '//! Stands in.\nfn main() {}' > /main.rs \
    && find crates -type f ! -name Cargo.toml ! -name main.rs ! -path '*/src/lib.rs' \
        ! -path '*/src/bin/*.rs' ! -path '*/benches/*.rs' ! -path '*/tests/*.rs' \
        ! -name build.rs -delete \
    && find crates -type f -name '*.rs' ! -name lib.rs -exec cp /main.rs {} \; \
    && find crates -type f -name lib.rs -exec cp /lib.rs {} \; \
    && find crates -type d -empty -delete

FROM rust:1-slim-bookworm AS builder
WORKDIR /src
# For tests: with off, 0 and 16 it takes minutes less and makes programs that are slower.
ARG LTO=fat
ARG OPT_LEVEL=3
ARG CODEGEN_UNITS=1
ENV CARGO_PROFILE_RELEASE_STRIP=symbols \
    CARGO_PROFILE_RELEASE_LTO=$LTO \
    CARGO_PROFILE_RELEASE_OPT_LEVEL=$OPT_LEVEL \
    CARGO_PROFILE_RELEASE_CODEGEN_UNITS=$CODEGEN_UNITS
COPY --from=manifests /src .
RUN cargo build --release --locked \
        -p tradewind-cli -p tradewind-worker \
        -p tradewind-relay
COPY . .
# For --version: docker build --build-arg COMMIT="$(git describe --always --dirty)". There is no git in here.
ARG COMMIT=
ENV TRADEWIND_COMMIT=$COMMIT
# Sources are older than what was just built from their stand-ins: cargo goes by the time.
RUN find crates -name '*.rs' -exec touch {} + \
    && cargo build --release --locked \
        -p tradewind-cli -p tradewind-worker \
        -p tradewind-relay \
    && mkdir /programs \
    && mv target/release/tradewind target/release/ventilator target/release/worker \
        target/release/sink target/release/relay /programs/

FROM debian:bookworm-slim
COPY --from=builder /programs/ /usr/local/bin/
# Numeric, so that "must not run as root" can be checked without reading the image's passwd.
USER 10001:10001
WORKDIR /job
ENTRYPOINT ["/usr/local/bin/tradewind"]
CMD ["--help"]
