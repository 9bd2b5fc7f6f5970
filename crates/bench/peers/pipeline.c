/* The bare pipeline of the ZeroMQ guide: a ventilator deals lines to workers, a sink collects them.
 * One message a task, nothing kept, nothing acknowledged, no order, default high-water marks.
 *
 *   pipeline ventilator TASKS INPUT WORKERS          lines of INPUT ("-": stdin), once WORKERS are there
 *   pipeline worker     TASKS RESULTS [FACTOR]       sleeps FACTOR times the seconds that a task says
 *   pipeline sink       RESULTS COUNT OUTPUT         a line each to OUTPUT ("-": stdout, flushed each)
 *   pipeline roundtrip  TASKS RESULTS COUNT          ventilator and sink in one; prints nanoseconds
 *
 * A worker runs until it is killed; the sink ends after COUNT results (0: never). */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <zmq.h>

static void check(int ok, const char *what)
{
    if (!ok) {
        fprintf(stderr, "pipeline: %s: %s\n", what, zmq_strerror(zmq_errno()));
        exit(1);
    }
}

static void *context;

static void *listen_on(int type, const char *endpoint)
{
    void *socket = zmq_socket(context, type);
    check(socket != NULL, "socket");
    check(zmq_bind(socket, endpoint) == 0, endpoint);
    return socket;
}

static void *dial(int type, const char *endpoint)
{
    void *socket = zmq_socket(context, type);
    check(socket != NULL, "socket");
    /* Of three programs that start at once one may dial too early; 100 ms, the default, would be a good
     * part of a short run. */
    int again_ms = 1;
    check(zmq_setsockopt(socket, ZMQ_RECONNECT_IVL, &again_ms, sizeof again_ms) == 0, "option");
    check(zmq_connect(socket, endpoint) == 0, endpoint);
    return socket;
}

static void send_bytes(void *socket, const char *bytes, size_t length)
{
    check(zmq_send(socket, bytes, length, 0) >= 0, "send");
}

static void receive(zmq_msg_t *message, void *socket)
{
    check(zmq_msg_recv(message, socket, 0) >= 0, "receive");
}

/* PUSH would give the first worker all that its queue holds before the second is there. */
static void *listen_and_wait_for(const char *endpoint, int workers)
{
    void *socket = zmq_socket(context, ZMQ_PUSH);
    check(zmq_socket_monitor(socket, "inproc://monitor", ZMQ_EVENT_HANDSHAKE_SUCCEEDED) == 0, "monitor");
    void *monitor = dial(ZMQ_PAIR, "inproc://monitor");
    check(zmq_bind(socket, endpoint) == 0, endpoint);
    while (workers > 0) {
        zmq_msg_t message;
        zmq_msg_init(&message);
        receive(&message, monitor);
        /* An event is two frames; the second is the address. */
        workers -= zmq_msg_more(&message);
        zmq_msg_close(&message);
    }
    zmq_socket_monitor(socket, NULL, 0);
    zmq_close(monitor);
    return socket;
}

static int ventilator(const char *tasks, const char *input, int workers)
{
    FILE *in = strcmp(input, "-") == 0 ? stdin : fopen(input, "r");
    check(in != NULL, input);
    void *socket = listen_and_wait_for(tasks, workers);
    char *line = NULL;
    size_t capacity = 0;
    ssize_t length;
    while ((length = getline(&line, &capacity, in)) > 0)
        send_bytes(socket, line, length - (line[length - 1] == '\n'));
    /* Lingers until all is sent. */
    zmq_close(socket);
    return zmq_ctx_term(context);
}

static void sleep_for(const zmq_msg_t *task, double factor)
{
    char text[64] = {0};
    size_t length = zmq_msg_size(task);
    memcpy(text, zmq_msg_data((zmq_msg_t *)task), length < sizeof text ? length : sizeof text - 1);
    double seconds = factor * atof(text);
    struct timespec left = {(time_t)seconds, (long)((seconds - (time_t)seconds) * 1e9)};
    while (nanosleep(&left, &left) != 0 && errno == EINTR) {
    }
}

static _Noreturn void worker(const char *tasks, const char *results, double factor)
{
    void *to = dial(ZMQ_PUSH, results);
    void *from = dial(ZMQ_PULL, tasks);
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (;;) {
        receive(&message, from);
        if (factor > 0)
            sleep_for(&message, factor);
        /* Takes the message without copying it, and leaves an empty one. */
        check(zmq_msg_send(&message, to, 0) >= 0, "send");
    }
}

static int sink(const char *results, long count, const char *output)
{
    int is_watched = strcmp(output, "-") == 0;
    FILE *out = is_watched ? stdout : fopen(output, "w");
    check(out != NULL, output);
    void *socket = listen_on(ZMQ_PULL, results);
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (long seen = 0; count == 0 || seen < count; seen++) {
        receive(&message, socket);
        fwrite_unlocked(zmq_msg_data(&message), 1, zmq_msg_size(&message), out);
        putc_unlocked('\n', out);
        if (is_watched)
            fflush(out);
    }
    check(fclose(out) == 0, output);
    /* Nothing is left to send: there is no need to wait for an orderly end. */
    _exit(0);
}

static long long now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static int roundtrip(const char *tasks, const char *results, long count)
{
    void *from = listen_on(ZMQ_PULL, results);
    void *to = listen_and_wait_for(tasks, 1);
    zmq_msg_t message;
    zmq_msg_init(&message);
    for (long sent = 0; sent < count; sent++) {
        long long began = now_ns();
        send_bytes(to, "0123456789abcdef", 16);
        receive(&message, from);
        printf("%lld\n", now_ns() - began);
    }
    fflush(stdout);
    _exit(0);
}

int main(int argc, char **argv)
{
    const char *role = argc > 1 ? argv[1] : "";
    if (strcmp(role, "version") == 0) {
        int major, minor, patch;
        zmq_version(&major, &minor, &patch);
        return printf("%d.%d.%d\n", major, minor, patch) < 0;
    }
    context = zmq_ctx_new();
    if (strcmp(role, "ventilator") == 0 && argc == 5)
        return ventilator(argv[2], argv[3], atoi(argv[4]));
    if (strcmp(role, "worker") == 0 && argc >= 4)
        worker(argv[2], argv[3], argc > 4 ? atof(argv[4]) : 0);
    if (strcmp(role, "sink") == 0 && argc == 5)
        return sink(argv[2], atol(argv[3]), argv[4]);
    if (strcmp(role, "roundtrip") == 0 && argc == 5)
        return roundtrip(argv[2], argv[3], atol(argv[4]));
    fprintf(stderr, "usage: pipeline ventilator|worker|sink|roundtrip|version ...\n");
    return 2;
}
