worker_processes 4
listen "127.0.0.1:#{ENV['PORT']}"
