# One image for all processes of ours; docker-compose.yml names the command of each.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src

COPY pyproject.toml requirements.lock requirements-dev.lock deploy/compose/lock.py ./
RUN python lock.py build > build.lock \
 && python lock.py > servers.lock \
 && python lock.py tracing requirements-dev.lock > tracing.lock \
 && python -m venv --without-pip /opt/lockbox \
 && python -m pip install --require-hashes --only-binary=:all: -r build.lock \
 && python -m pip --python /opt/lockbox install --require-hashes --only-binary=:all: -r servers.lock \
 && python -m pip --python /opt/lockbox install --require-hashes --only-binary=:all: -r tracing.lock

COPY README.md LICENSE NOTICE ./
COPY api api
COPY catalogue catalogue
COPY cli cli
COPY config config
COPY connectors connectors
COPY devstack devstack
COPY gate gate
COPY lockbox lockbox
COPY worker worker
# A wheel first: with --python, pip would look for the build backend in the environment that it installs into.
RUN python -m pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
 && python -m pip --python /opt/lockbox install --no-deps /wheels/*.whl


FROM python:3.13-slim
RUN python -m pip uninstall --yes --root-user-action=ignore pip \
 && groupadd --gid 10001 lockbox \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin lockbox \
 && mkdir -p /var/lib/lockbox/checkpoints && chown 10001:10001 /var/lib/lockbox/checkpoints
COPY --from=build /opt/lockbox /opt/lockbox
ENV PATH=/opt/lockbox/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/lockbox
USER 10001:10001
CMD ["python", "-m", "api", "--host", "0.0.0.0", "--port", "8000"]
